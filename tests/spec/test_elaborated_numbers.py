"""What elaborated formulas compute, against numpy: attention, graphs, reducers, model tables."""

import math
from pathlib import Path

import numpy as np
import pytest
from tilth.compiler.interpret import interpret
from tilth.spec.diagnostics import Reporter
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

CORPUS = Path(__file__).with_name("elaborated")
ZOO = Path(__file__).parents[2] / "zoo_specs"
ERF = np.vectorize(math.erf)


def graph_of(path, *overrides):
    reporter = Reporter({})
    envelope = read_envelope(path.read_text(encoding="utf-8"), path.name, reporter)
    reporter.raise_if_failed()
    return elaborate(envelope, reporter, None, overrides).graph


def run(name, inputs, params=None, overrides=()):
    graph = graph_of(CORPUS / f"{name}.yaml", *overrides)
    return interpret(graph, inputs, params or {}, precision="f64")


def tables(graph, op, inputs, params):
    """The operands of every statement of one kind, with the axes that lead them."""
    found = []
    for index, node in graph.of_op(op):
        twin = graph.copy()
        operands = graph.operands(index)
        twin.outputs = [(str(place), value) for place, value in enumerate(operands)]
        twin.prune()
        paths = {node.attrs["path"] for _, node in twin.of_op("param")}
        given = {path: params[path] for path in paths}
        values = interpret(twin, inputs, given, precision="f64").values()
        found.append([*zip(node.attrs["axes"], values, strict=True)])
    return found


def arranged(table, *names):
    """The table with its axes in a given order (what follows them stays last)."""
    axes, values = table
    order = [axes.index(name) for name in names]
    return values.transpose(*order, *range(len(axes), values.ndim))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def test_reducers():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 5))
    found = run("matmul", {"A": a, "B": b})
    np.testing.assert_allclose(found["C"], a @ b)
    np.testing.assert_allclose(found["best"], (a[:, :, None] + b).max(axis=1))
    np.testing.assert_array_equal(found["some"], (a > 0).any(axis=1))
    np.testing.assert_array_equal(found["top"], a.argmax(axis=1))
    np.testing.assert_allclose(found["soft"], np.log(np.exp(a).sum(axis=1)))
    np.testing.assert_allclose(found["pairs"], np.outer(a[:, 0], b[0]).reshape(-1))
    np.testing.assert_allclose(found["cut"], a[:, :2].sum(axis=1))


def test_graph_convolution():
    rng = np.random.default_rng(1)
    src = np.array([0, 1, 1, 2, 3, 4], np.int32)
    dst = np.array([1, 0, 2, 1, 4, 3], np.int32)
    x = rng.normal(size=(5, 4))
    p = {"h.0.weight": rng.normal(size=(16, 4)), "h.0.bias": rng.normal(size=16)}
    p |= {"out.weight": rng.normal(size=(7, 16)), "out.bias": rng.normal(size=7)}
    found = run("gcn", {"x": x, "src": src, "dst": dst}, p)
    adjacency = np.eye(5)
    adjacency[dst, src] += 1
    degree = adjacency.sum(axis=1)
    h = np.maximum(x @ p["h.0.weight"].T + p["h.0.bias"], 0)
    mixed = (adjacency / np.sqrt(np.outer(degree, degree))) @ h
    np.testing.assert_array_equal(found["deg"], degree)
    np.testing.assert_allclose(found["y"], mixed @ p["out.weight"].T + p["out.bias"])


def test_causal_attention():
    graph = graph_of(CORPUS / "transformer.yaml", "V=11")
    rng = np.random.default_rng(2)
    p = {
        node.attrs["path"]: rng.normal(size=node.type.shape) / 20
        for _, node in graph.of_op("param")
    }
    token = rng.integers(0, 11, size=(2, 4)).astype(np.int32)
    x = p["wte"][token]

    def norm(x, path):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * p[f"{path}.weight"] + p[f"{path}.bias"]

    def affine(x, path):
        return x @ p[f"{path}.weight"].T + p[f"{path}.bias"]

    for layer in range(6):
        a = norm(x, f"h.{layer}.ln1")
        q, k, v = (np.einsum("hdc,ntc->nhtd", p[f"h.{layer}.attn.W{w}"], a) for w in "qkv")
        score = q @ k.swapaxes(-1, -2) / 8
        seen = softmax(np.where(np.tri(4, dtype=bool), score, -np.inf))
        x = x + np.einsum("chd,nhtd->ntc", p[f"h.{layer}.attn.Wo"], seen @ v)
        b = affine(norm(x, f"h.{layer}.ln2"), f"h.{layer}.mlp.0")
        x = x + affine(b * (1 + ERF(b / np.sqrt(2))) / 2, f"h.{layer}.mlp.2")
    wanted = affine(norm(x, "ln_f"), "head")
    found = interpret(graph, {"token": token}, p, precision="f64")["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_input_output_hidden_markov_tables():
    graph = graph_of(CORPUS / "aio_hmm.yaml")
    rng = np.random.default_rng(3)
    p = {n.attrs["path"]: rng.normal(size=n.type.shape) for _, n in graph.of_op("param")}
    u, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
    first, step, seen = tables(graph, "site", {"u": u, "y": y}, p)
    np.testing.assert_allclose(first[0][1], softmax(p["W0"] @ u[0]))
    scores = np.einsum("ijf,tf->tij", p["W"], u[1:]) + p["b"]
    np.testing.assert_allclose(arranged(step[0], "t", "z[t-1]"), softmax(scores))
    before = np.concatenate([np.zeros((1, 2)), y[:-1]])
    mean = np.einsum("kdf,tf->tkd", p["V"], u) + np.einsum("kde,te->tkd", p["A"], before)
    np.testing.assert_allclose(arranged(seen[0], "t", "z[t]"), mean)
    np.testing.assert_allclose(seen[2][1], y)


def pairwise(vectors, width):
    gaps = vectors[:, None] - vectors[None]
    return np.exp(-(gaps**2).sum(axis=-1) / (2 * width * width))


@pytest.mark.parametrize(
    ("path", "sign", "near", "far", "colour"),
    [
        (ZOO / "probabilistic" / "dense_crf.yaml", "potts", 3, 60, 10),
        (CORPUS / "dense_crf_page.yaml", "table", 3, 160, 3),
    ],
    ids=["zoo", "page"],
)
def test_dense_crf_energies(path, sign, near, far, colour):
    graph = graph_of(path, "L=4")
    rng = np.random.default_rng(4)
    height, width = 2, 3
    places = np.array([(r, c) for r in range(height) for c in range(width)], float)
    p = {n.attrs["path"]: rng.uniform(0.5, 1, size=n.type.shape) for _, n in graph.of_op("param")}
    image = rng.uniform(0, 9, size=(3, height, width))
    if sign == "potts":
        inputs = {"unary": rng.normal(size=(4, height, width)), "image": image}
        smooth, similar = p["w"][1], p["w"][0]
        compatible = 1 - np.eye(4)
    else:
        inputs = {"image": image[None], "pos": places.reshape(height, width, 2)}
        smooth, similar = p["w"]
        compatible = p["mu"]
    unary, pair = tables(graph, "factor", inputs, p)
    kernel = smooth * pairwise(places, near)
    colours = image.reshape(3, -1).T
    kernel += similar * pairwise(places, far) * pairwise(colours, colour)
    axes, values = pair[0]
    if axes[0] == "N":
        axes, values = axes[1:], values[0]
    found = arranged((axes, values), "x[i]", "x[j]", "i", "j")
    wanted = -compatible[:, :, None, None] * kernel
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_array_equal(arranged(pair[1], "i", "j"), np.triu(np.ones((6, 6)), 1) == 1)
    if sign == "potts":
        np.testing.assert_allclose(arranged(unary[0], "x[i]", "i"), -inputs["unary"].reshape(4, 6))


def test_neighbours_of_a_grid():
    graph = graph_of(CORPUS / "ising_sketch.yaml")
    field = np.arange(12.0).reshape(3, 4)
    unary, pair = tables(graph, "factor", {"b": field}, {"J": np.array(0.7)})
    spins = np.array([-1, 1])
    np.testing.assert_allclose(arranged(unary[0], "i", "x[i]"), np.outer(field, spins))
    np.testing.assert_allclose(arranged(pair[0], "x[i]", "x[j]"), 0.7 * np.outer(spins, spins))
    node = graph.of_op("factor")[1][1]
    assert [row[1:] for row in node.attrs["latents"]] == [
        ("x", (("table", 1),)),
        ("x", (("table", 2),)),
    ]
    edges = set(zip(pair[1][1].tolist(), pair[2][1].tolist(), strict=True))
    number = np.arange(12).reshape(3, 4)
    across = zip(number[:, :-1].ravel().tolist(), number[:, 1:].ravel().tolist(), strict=True)
    down = zip(number[:-1].ravel().tolist(), number[1:].ravel().tolist(), strict=True)
    assert edges == {*across, *down}
