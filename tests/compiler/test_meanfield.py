"""Mean field against its equations written as loops."""

import numpy as np
import pytest
from tilth.program import load

HEAD = "tilth: 1\nname: m\nmodel: |\n"


@pytest.fixture
def model(tmp_path):
    def make(text):
        body = "".join(f"  {line}\n" for line in text.strip().splitlines())
        (tmp_path / "m.yaml").write_text(HEAD + body)
        return load(tmp_path / "m.yaml")

    return make


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def loops(unary, pairs, steps, damping=0.0):
    """``pairs`` are ``(i, j, table)``; every q moves at once."""
    q = softmax(unary)
    for _ in range(steps):
        field = unary.copy()
        for i, j, table in pairs:
            field[i] += table @ q[j]
            field[j] += q[i] @ table
        q = (1 - damping) * softmax(field) + damping * q
    return q


@pytest.mark.parametrize("damping", [0, 0.3])
def test_neighbours_from_a_table(model, damping):
    program = model(f"""
index i, j : grid(3, 4)
input b : f64[3, 4, 3]
param J : real[3, 3]
x[i] ~ labels(3) for i in grid
factor b[i, x[i]] for i in grid
factor J[x[i], x[j]] for (i, j) in neighbours(grid)
output q = meanfield(x, steps=4, damping={damping})
""")  # fmt: skip
    rng = np.random.default_rng(0)
    b, table = rng.normal(size=(3, 4, 3)), rng.normal(size=(3, 3))
    number = np.arange(12).reshape(3, 4)
    across = zip(number[:, :-1].ravel(), number[:, 1:].ravel(), strict=True)
    down = zip(number[:-1].ravel(), number[1:].ravel(), strict=True)
    pairs = [(i, j, table) for i, j in (*across, *down)]
    want = loops(b.reshape(12, 3), pairs, 4, damping)
    found = program.run({"b": b}, {"J": table})["q"]
    np.testing.assert_allclose(found.reshape(12, 3), want, atol=1e-12)


def test_a_chain_and_all_pairs(model):
    program = model("""
input b : f64[5, 2]
param J : real[2, 2]
x[i] ~ labels(2) for i in 0..5
factor b[i, x[i]] for i in 0..5
factor 2 * x[0]
factor J[x[i-1], x[i]] for i in 1..5
factor 0.1 * x[i] * x[j] for i, j in [0..5, 0..5] if i < j
output q = meanfield(x, steps=3)
""".replace("for i, j in [0..5, 0..5] if", "for i in 0..5, j in 0..5 if"))  # fmt: skip
    rng = np.random.default_rng(1)
    b, table = rng.normal(size=(5, 2)), rng.normal(size=(2, 2))
    unary = b.copy()
    unary[0, 1] += 2
    both = np.array([[0, 0], [0, 0.1]])
    pairs = [(i, i + 1, table) for i in range(4)]
    pairs += [(i, j, both) for i in range(5) for j in range(i + 1, 5)]
    found = program.run({"b": b}, {"J": table})["q"]
    np.testing.assert_allclose(found, loops(unary, pairs, 3), atol=1e-12)


# ---------------------------------------------------------------- kernels over all pairs

KERNEL = """
input unary : f64[{batch}3, H, W]
input image : f64[{batch}2, H, W]
param w : real[2]
param mu : {mu}[3, 3]
index i, j : pixels(H, W)
pos[i] = i
def near(i, j, width) = gauss(pos[i] - pos[j], width)
def alike(i, j, width) = gauss(image[:, i] - image[:, j], width)
a[i] = 1 / sqrt(sum{{j}} near(i, j, 2) * alike(i, j, 0.7))
def k(i, j) = w[0] * a[i] * near(i, j, 2) * alike(i, j, 0.7) * a[j] - w[1] * near(i, j, 1.5) / 2
x[i] ~ labels(3) for i in pixels
factor unary[x[i], i] for i in pixels
factor {energy} * k(i, j) for i, j in pixels if {order}
output q = meanfield(x, steps=3{settings})
"""
POTTS = "-(if x[i] == x[j] then 0 else 1)"


def dense(model, batch="", mu="symmetric", energy=POTTS, order="i < j", settings=""):
    text = KERNEL.format(batch=batch, mu=mu, energy=energy, order=order, settings=settings)
    return model("\n".join(row for row in text.splitlines() if "mu" in energy or "mu" not in row))


def picture(seed=0, shape=(4, 5), lead=()):
    rng = np.random.default_rng(seed)
    unary, image = rng.normal(size=(*lead, 3, *shape)), rng.normal(size=(*lead, 2, *shape))
    return {"unary": unary, "image": image}, rng.normal(size=(3, 3))


def kernels(image, w):
    _, height, width = image.shape
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    places = places.reshape(-1, 2)
    colours = image.reshape(2, -1).T

    def gauss(f, sigma):
        return np.exp(-np.sum((f[:, None] - f[None]) ** 2, -1) / (2 * sigma**2))

    bilateral = gauss(places, 2) * gauss(colours, 0.7)
    a = 1 / np.sqrt(bilateral.sum(1))
    return w[0] * a[:, None] * bilateral * a - w[1] * gauss(places, 1.5) / 2


def by_pairs(inputs, w, table, ordered=False):
    k = kernels(inputs["image"], w)
    count = len(k)
    pairs = [
        (i, j, table * k[i, j]) for i in range(count) for j in range(count)
        if (i != j if ordered else i < j)
    ]  # fmt: skip
    unary = inputs["unary"].reshape(3, -1).T
    return loops(unary, pairs, 3).reshape(*inputs["unary"].shape[1:], 3)


def widest(program):
    """The largest number of elements of a value of the answer."""
    from tilth.compiler.inference.expand import expand

    graph = expand(program.graph.bind({"H": 4, "W": 5}))
    sizes = [np.prod(kind.shape) for _, node in graph.nodes() for kind in node.types]
    return max(sizes), {node.op for _, node in graph.nodes()}


W = np.array([0.8, 0.5])


def test_a_potts_kernel_is_filtered_not_tabulated(model):
    program = dense(model)
    inputs, _ = picture()
    found = program.run(inputs, {"w": W})["q"]
    np.testing.assert_allclose(found, by_pairs(inputs, W, np.eye(3) - 1), atol=1e-12)
    size, ops = widest(program)
    assert size < 20 * 20 and "gauss_filter" in ops and "contract" not in ops


@pytest.mark.parametrize("order", ["i < j", "j > i", "i > j"])
def test_symmetric_compatibility(model, order):
    inputs, mu = picture(1)
    mu = mu + mu.T
    program = dense(model, energy="mu[x[i], x[j]]", order=order)
    found = program.run(inputs, {"w": W, "mu": mu})["q"]
    np.testing.assert_allclose(found, by_pairs(inputs, W, mu), atol=1e-12)
    assert "gauss_filter" in widest(program)[1]


def test_any_compatibility_where_pairs_count_in_both_orders(model):
    inputs, mu = picture(2)
    program = dense(model, mu="real", energy="mu[x[i], x[j]]", order="i != j")
    found = program.run(inputs, {"w": W, "mu": mu})["q"]
    np.testing.assert_allclose(found, by_pairs(inputs, W, mu, True), atol=1e-12)
    assert "gauss_filter" in widest(program)[1]


def test_one_sided_compatibility_is_worked_out_pair_by_pair(model):
    inputs, mu = picture(3)
    program = dense(model, mu="real", energy="mu[x[i], x[j]]")
    found = program.run(inputs, {"w": W, "mu": mu})["q"]
    np.testing.assert_allclose(found, by_pairs(inputs, W, mu), atol=1e-12)
    assert widest(program)[0] == 3 * 3 * 20 * 20


def test_a_batch_is_each_of_its_pictures(model):
    inputs, mu = picture(4, lead=(3,))
    weights = {"w": W, "mu": mu + mu.T}
    program = dense(model, batch="N, ", energy="mu[x[i], x[j]]")
    found = program.run(inputs, weights)["q"]
    for n in range(3):
        one = {name: array[n] for name, array in inputs.items()}
        np.testing.assert_allclose(found[n], by_pairs(one, W, mu + mu.T), atol=1e-12)


def test_lattice_is_near_the_exact_filter_and_shares_its_lattice(model):
    rng = np.random.default_rng(5)
    rows = np.linspace(0, 1, 12)[:, None] + np.linspace(0, 1, 16)[None]
    inputs = {"unary": rng.normal(size=(3, 12, 16)), "image": np.stack([rows, rows**2])}
    exact = dense(model, settings=", filter=exact").run(inputs, {"w": W})["q"]
    program = dense(model, settings=", filter=lattice")
    found = program.run(inputs, {"w": W})["q"]
    assert np.abs(found - exact).mean() < 0.02
    assert (found.argmax(-1) == exact.argmax(-1)).mean() > 0.95
    from tilth.compiler.inference.expand import expand

    graph = expand(program.graph.bind({"H": 12, "W": 16}))
    counts = {op: len(graph.of_op(op)) for op in ("lattice", "lattice_filter", "gauss_grid_filter")}
    assert counts == {"lattice": 1, "lattice_filter": 4, "gauss_grid_filter": 3}


@pytest.mark.parametrize("filter", ["exact", "lattice"])
def test_compiled_mean_field(model, filter):
    inputs, _ = picture(6, (9, 11))
    program = dense(model, settings=f", filter={filter}")
    want = program.run(inputs, {"w": W})["q"]
    found = program.run(inputs, {"w": W}, engine="cpu")["q"]
    np.testing.assert_allclose(found, want, atol=1e-10)
