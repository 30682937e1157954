"""Every probabilistic spec of the zoo answers every question, and the answers fit together."""

import numpy as np
import pytest
from test_every_explanation import NAMES
from tilth.compiler.inference.explain import random_data
from tilth.compiler.inference.statements import statements_of
from tilth.inference import ASKS
from tilth.program import load

SIZES = {"N": 2, "T": 4, "H": 2, "W": 2}


def small(name):
    """A spec with small options, data that it could have drawn, and weights."""
    program = load(name)
    options = {o: min(v, 3) for o, v in program.whole_options().items()}
    program = program.with_options(options)
    sizes = {s: SIZES[s] for s in program.graph.symbols}
    data = random_data(program.graph.bind(sizes), 3)
    return program, sizes, data, [program.initial_weights(seed, sizes) for seed in (0, 1)]


@pytest.mark.parametrize("name", NAMES)
def test_every_question(name):
    program, _, data, (weights, other) = small(name)
    found = program.query(data, ASKS, weights, seed=1)
    seen = {s.variable for s in statements_of(program.graph) if s.role == "input"}
    asked = {key.partition("(")[0] for key in found}
    assert asked >= {"loglik", "logprior", "entropy", "marginals", "map", "sample", "statistics"}
    assert {"predictive", "replicate"} <= asked or not seen
    assert all(np.all(np.isfinite(a)) for key, a in found.items() if "predictive" not in key)
    assert np.all(found["entropy"] >= 0)
    given = {}
    for key in [k for k in found if k.startswith("marginals")]:
        variable, p = key[len("marginals(") : -1], found[key]
        np.testing.assert_allclose(p.sum(-1), 1, atol=1e-9)
        for kind in ("map", "sample"):
            values = found[f"{kind}({variable})"]
            assert values.shape == p.shape[:-1]
            assert np.all(np.take_along_axis(p, values[..., None].astype(int), -1) > 0)
        given[variable] = found[f"map({variable})"]
    # log p(map, data) is at most log p(data), and no less than that of the sample.
    best = program.query({**data, **given}, ["loglik"], weights)["loglik"]
    drawn = {v: found[f"sample({v})"] for v in given}
    rest = program.query({**data, **drawn}, ["loglik"], weights)["loglik"]
    assert np.all(best <= found["loglik"] + 1e-9) and np.all(best >= rest - 1e-9)
    # Divergences of posteriors.
    assert abs(program.kl(weights, weights, data)) < 1e-9
    assert program.kl(weights, other, data) >= -1e-9


@pytest.mark.parametrize("name", NAMES)
def test_every_question_from_the_command_line(name, tmp_path, monkeypatch, capsys):
    from tilth.cli.main import main

    program, sizes, data, (weights, _) = small(name)
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", **data)
    np.savez("weights.npz", **weights)
    words = ["query", name, "--weights", "weights.npz", "--ask", ",".join(ASKS)]
    words += [f"--set={o}={v}" for o, v in program.whole_options().items()]
    words += [w for n in data for w in ("--data", f"{n}=data.npz:{n}")]
    words += [w for n, size in sizes.items() for w in ("--shape", f"{n}={size}")]
    assert main([*words, "--output", "found.npz"]) == 0
    assert "Traceback" not in capsys.readouterr().err
    with np.load("found.npz") as found:
        here = program.query(data, ["loglik", "marginals"], weights)
        for key, want in here.items():
            np.testing.assert_allclose(found[key], want, atol=1e-9)
