"""The public face in Python: load by path and name, run, weights, and refusals."""

import numpy as np
import pytest
import tilth
from safetensors.numpy import save_file
from tilth import zoo
from tilth.bench.problem import nominal_sizes
from tilth.compiled import module_source, plan_of
from tilth.program import find_spec, load
from tilth.runtime.module import Module


def codes(caught):
    return [d.code for d in caught.value.diagnostics]


def test_load_takes_a_path_a_variant_and_options(specs):
    program = tilth.load("tiny.yaml", set={"width": 6}, variant="tiny_wide")
    assert (program.name, program.variant) == ("tiny", "tiny_wide")
    assert program.parameters()["conv1.weight"].shape == (6, 3, 3, 3)
    assert program.overridden
    assert [str(kind) for kind in program.inputs.values()] == ["f32[N, 3, H, W]"]
    assert program.cost({"H": 8, "W": 8}).macs == 6 * 3 * 9 * 64 + 6 * 3


def test_options_may_be_lists_texts_and_truths(specs):
    (specs / "o.yaml").write_text(
        "tilth: 1\nname: o\noptions: {widths: [4], kind: thin, bias: false}\nmodel: |\n"
        "  def thin(w) = linear(w, bias=bias)\n  def thick(w) = linear(10*w, bias=bias)\n"
        "  input x : f32[N, 2]\n  y = x >> chain([kind(w) for w in widths]) as net\n  output y\n"
    )
    program = load("o.yaml", set={"widths": [3, 5], "kind": "thick", "bias": True})
    assert [k.shape for k in program.parameters().values()] == [(30, 2), (30,), (50, 30), (50,)]


def test_sizes_are_filled_in(specs):
    program = load("tiny.yaml", sizes={"image": (2, 3, 8, 6)})
    assert str(program.inputs["image"]) == "f32[2, 3, 8, 6]"
    assert load("tiny.yaml", sizes={"H": 8, "W": 6}).inputs["image"].shape[2:] == (8, 6)
    with pytest.raises(tilth.SpecError) as caught:
        load("tiny.yaml", sizes={"Q": 3})
    assert codes(caught) == ["E802"]


def test_a_size_that_decides_the_model_is_known_while_it_is_built(specs):
    (specs / "s.yaml").write_text(
        "tilth: 1\nname: s\nmodel: |\n  input x : f32[N, D]\n"
        "  y = x >> (if D > 3 then linear(2) as big else linear(1) as small)\n  output y\n"
    )
    with pytest.raises(tilth.SpecError):
        load("s.yaml")
    assert "big.weight" in load("s.yaml", sizes={"D": 4}).parameters()
    assert "small.weight" in load("s.yaml", sizes={"x": (1, 2)}).parameters()


def test_run_is_the_same_for_the_same_seed(specs):
    program = load("tiny.yaml")
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    first = program.run({"image": image}, seed=3)["logits"]
    assert first.shape == (2, 3) and first.dtype == np.float32
    assert np.array_equal(first, program.run({"image": image}, seed=3)["logits"])
    assert not np.array_equal(first, program.run({"image": image}, seed=4)["logits"])


def test_precision(specs):
    program = load("tiny.yaml")
    image = np.ones((1, 3, 8, 8), np.float32)
    double = program.run({"image": image}, precision="f64")["logits"]
    assert double.dtype == np.float64
    np.testing.assert_allclose(program.run({"image": image})["logits"], double, rtol=1e-5)


def test_weights_from_a_file_are_those_given(specs):
    program = load("tiny.yaml")
    weights = program.initial_weights(7)
    save_file({**weights, "bn1.num_batches_tracked": np.array(1)}, specs / "w.safetensors")
    image = {"image": np.ones((1, 3, 8, 8))}
    expected = program.run(image, seed=7)["logits"]
    np.testing.assert_array_equal(program.run(image, "w.safetensors")["logits"], expected)
    np.testing.assert_array_equal(program.run(image, weights)["logits"], expected)


def test_strict_and_not(specs):
    program = load("tiny.yaml")
    weights = program.initial_weights(7)
    del weights["fc.bias"]
    image = {"image": np.ones((1, 3, 8, 8))}
    with pytest.raises(tilth.SpecError) as caught:
        program.run(image, weights)
    assert codes(caught) == ["E801"]
    notes: list[str] = []
    program.run(image, weights, strict=False, note=notes.append)
    assert notes == ["fc.bias: missing"]


def test_a_spec_reads_a_packed_checkpoint(specs):
    (specs / "lin.yaml").write_text(
        "tilth: 1\nname: lin\noptions: {H: 2}\nmodel: |\n"
        "  input x : f32[N, 3]\n  param A, B : real[H, 3]\n  param b : real[H]\n"
        "  y = A @ x + B @ x + b\n  output y\n"
        'weights:\n  torch:\n    "w[0:H]": A\n    "w[H:2*H]": B\n    "b1": b\n    "b2": b\n'
    )
    program = load("lin.yaml")
    assert program.check().ok
    w = np.arange(12, dtype=np.float32).reshape(4, 3)
    arrays = {"w": w, "b1": np.array([1.0, 2.0]), "b2": np.array([3.0, 4.0])}
    y = program.run({"x": np.array([[1.0, 0.0, -1.0]])}, arrays)["y"]
    expected = (w[:2] + w[2:]) @ [1, 0, -1] + [4, 6]
    np.testing.assert_allclose(y, [expected])


def test_inputs_that_do_not_fit_are_E802(specs):
    program = load("tiny.yaml")
    for inputs in ({}, {"image": np.zeros((1, 4, 8, 8))}, {"x": np.zeros(1), "image": 0}):
        with pytest.raises(tilth.SpecError) as caught:
            program.run(inputs)
        assert codes(caught) == ["E802"]
    with pytest.raises(tilth.SpecError) as caught:
        program.run({})
    assert "image : f32[N, 3, H, W]" in str(caught.value)


def test_what_later_parts_do_is_E804(specs):
    with pytest.raises(tilth.SpecError) as caught:
        load("tiny.yaml").run({"image": np.zeros((1, 3, 8, 8))}, engine="quantum")
    assert codes(caught) == ["E804"]


def test_a_run_beyond_memory_is_refused_before_it_starts(specs):
    program = load("tiny.yaml", sizes={"image": (1, 3, 2**20, 2**20)})
    with pytest.raises(tilth.SpecError) as caught:
        program.read_inputs(["image=zeros"])
    assert codes(caught) == ["E703"]


def test_a_size_that_only_weights_tell(specs):
    (specs / "k.yaml").write_text(
        "tilth: 1\nname: k\nmodel: |\n  input x : f32[N, 3]\n  param A : real[K, 3]\n"
        "  y = A @ x\n  output y\n"
    )
    program = load("k.yaml")
    x = {"x": np.ones((2, 3))}
    assert program.run(x, {"A": np.ones((5, 3))})["y"].shape == (2, 5)
    with pytest.raises(tilth.SpecError) as caught:
        program.run(x)
    assert codes(caught) == ["E805"]
    assert load("k.yaml", sizes={"K": 4}).run(x)["y"].shape == (2, 4)


def test_sizes_that_do_not_fit_are_told_before_anything_is_compiled():
    sizes = {"N": 1, "H": 224, "W": 256}
    program = load("hourglass2")
    with pytest.raises(tilth.SpecError, match=r"is 7 but .* is 6: sizes in `\+`"):
        module_source(program, sizes)
    with pytest.raises(tilth.SpecError, match=r"7 is not 6: sizes in `\+`"):
        module_source(load("hourglass2", sizes={"image": (1, 3, 224, 256)}), {})
    with pytest.raises(tilth.SpecError) as caught:
        nominal_sizes(load("lstm"), 1, {})
    assert codes(caught) == ["E805"]


def test_tiny_nets_stay_on_one_thread():
    tiny = plan_of(module_source(load("lenet"), {"N": 1}, 4), "lenet")
    assert tiny.team == 1 and Module(tiny, load("lenet").initial_weights(), 4).threads == 1
    sizes = {"N": 1, "H": 224, "W": 224}
    assert plan_of(module_source(load("squeezenet1_1"), sizes, 4), "squeezenet1_1").team is None


def test_the_zoo_is_found_by_name_and_variant(tmp_path):
    folder = tmp_path / "family"
    folder.mkdir()
    head = "tilth: 1\nname: net\ntitle: 'A: title'\nimplements: [net_id]\n"
    (folder / "a.yaml").write_text(head + "variants:\n  net18: {}\n  on: {}\nmodel: |\n  x: [y\n")
    (folder / "b.yaml").write_text("tilth: 1\nname: flow\nvariants: {flow1: {a: [1]}, f2: {}}\n")
    (folder / "broken.yaml").write_text("name: [\n")
    assert zoo.names(tmp_path) == ["broken", "f2", "flow", "flow1", "net", "net18", "on"]
    entry, variant = zoo.find("net18", tmp_path) or pytest.fail("not found")
    assert (entry.name, entry.title, entry.family, variant) == (
        "net",
        "A: title",
        "family",
        "net18",
    )
    assert entry.implements == ("net_id",)
    assert zoo.find("net", tmp_path) == (entry, None)
    assert zoo.find("nothing", tmp_path) is None


def test_unknown_names_suggest_known_ones():
    with pytest.raises(tilth.SpecError) as caught:
        find_spec("resnet5")
    assert codes(caught) == ["E001"]
    assert "`resnet50`" in str(caught.value)


def test_a_variant_of_a_variant_is_refused():
    with pytest.raises(tilth.SpecError) as caught:
        load("resnet50", variant="resnet18")
    assert codes(caught) == ["E014"]


def test_zoo_names_are_unique():
    names = [e.name for e in zoo.entries()] + [
        v for e in zoo.entries() for v in e.variants if v != e.name
    ]
    assert sorted(names) == sorted(set(names))
    assert "resnet50" in names


def test_the_package_is_lazy():
    assert tilth.__version__.count(".") >= 2
    with pytest.raises(AttributeError):
        tilth.nothing  # noqa: B018
