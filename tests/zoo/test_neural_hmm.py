"""An HMM whose emissions are a net, trained end to end by the gradient of the log-likelihood."""

import numpy as np
from tilth.program import load


def sequences(seed, count=4, steps=60):
    """Two laws of the covariates take turns: a sine of the first, a parabola of the second."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (count, steps, 2))
    z = np.zeros((count, steps), int)
    for t in range(1, steps):
        z[:, t] = np.where(rng.random(count) < 0.95, z[:, t - 1], 1 - z[:, t - 1])
    mean = np.where(z == 0, np.sin(2 * x[..., 0]) + 1, x[..., 1] ** 2 - 2)
    return {"x": x, "y": (mean + 0.2 * rng.normal(size=z.shape))[..., None]}, z


def test_it_learns_when_which_law_holds():
    program = load("neural_hmm")
    run = program.train(sequences(0)[0], steps=220, seed=1, show=False)
    losses = [row[3]["loss"] for row in run.history]
    assert losses[-1] < losses[0] / 4
    data, truth = sequences(1)
    found = program.query(data, ["map", "loglik"], run.weights)
    right = np.mean(found["map(z)"] == truth)
    assert max(right, 1 - right) > 0.9
    # The laws apart from their order in time do not explain new data as well.
    before = program.query(data, ["loglik"], program.initial_weights(1))["loglik"]
    assert np.all(found["loglik"] > before + 20)
