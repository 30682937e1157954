"""The other commands: inspect, run, fmt, new, schema, zoo, doctor."""

import io
import json
import os
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from tilth.cli.starters import STARTERS
from tilth.compiler.ir.text import parse_graph
from tilth.program import load

# ---------------------------------------------------------------- inspect


def test_inspect_prints_a_table_at_the_sizes_of_the_facts(specs, tilth):
    done = tilth("inspect", "tiny.yaml")
    assert done.code == 0
    assert "[N, 4, 8, 8]" in done.out and "6,924" in done.out
    assert "\x1b" not in done.out
    folded = tilth("inspect", "tiny.yaml", "--fold").out
    assert len(folded.splitlines()) < len(done.out.splitlines()) + 1


def test_inspect_text_is_the_graph(specs, tilth):
    done = tilth("inspect", "tiny.yaml", "--format", "text")
    assert parse_graph(done.out) == load("tiny.yaml").graph


def test_inspect_writes_drawings_and_pages(specs, tilth):
    for kind in ("svg", "html", "dot", "json", "text", "table"):
        done = tilth("inspect", "tiny.yaml", "--format", kind, "-o", f"out.{kind}")
        assert done.code == 0 and done.out == ""
        assert (specs / f"out.{kind}").stat().st_size > 100
    assert ElementTree.parse(specs / "out.svg").getroot().tag.endswith("svg")
    assert json.loads((specs / "out.json").read_text())["name"] == "tiny"
    assert "conv(width, 3) as conv1" in (specs / "out.html").read_text()
    assert "6,924" in (specs / "out.table").read_text()


def test_inspect_spec_is_the_formatted_text_or_the_tree(specs, tilth):
    text = (specs / "tiny.yaml").read_text()
    (specs / "tiny.yaml").write_text(text.replace(" >> gap", "  >>  gap"))
    assert tilth("inspect", "tiny.yaml", "--stage", "spec").out == text
    tree = tilth("inspect", "tiny.yaml", "--stage", "spec", "--format", "json").json
    assert [row["node"] for row in tree] == ["Input", "Equation", "Output"]
    assert tree[0]["names"] == ["image"]
    assert tree[0]["at"] == [13, 3]


def test_inspect_shows_a_spec_that_does_not_elaborate(specs, tilth):
    assert tilth("inspect", "bad.yaml", "--stage", "spec").code == 0
    assert tilth("inspect", "bad.yaml").code == 1


def test_inspect_shows_what_flows_back(specs, tilth):
    text = tilth("inspect", "tiny.yaml", "--stage", "backward", "--format", "text").out
    assert "d(logits)" in text
    assert "conv_backward_weight" in text and "grad(conv1.weight)" in text
    assert "conv1" in tilth("inspect", "tiny.yaml", "--stage", "backward").out
    assert tilth("inspect", "chain.yaml", "--stage", "backward").code == 1


def test_inspect_refuses_what_a_stage_lacks_and_folders_that_are_not(specs, tilth):
    done = tilth("inspect", "tiny.yaml", "--stage", "spec", "--format", "svg")
    assert done.code == 2 and "it has text, json" in done.err
    done = tilth("inspect", "tiny.yaml", "--format", "svg", "-o", "none/x.svg")
    assert done.code == 1 and "cannot write `none/x.svg`: no such file" in done.err


def test_inspect_shows_what_passes_do(specs, tilth):
    done = tilth("inspect", "tiny.yaml", "--diff", "fuse_epilogue")
    assert done.code == 0 and "fused_conv" in done.out
    assert tilth("inspect", "tiny.yaml", "--diff", "fuse_prologue").out.strip() == (
        "fuse_prologue changes nothing here"
    )
    assert "chain" in tilth("inspect", "chain.yaml", "--stage", "fused").out
    times = tilth("inspect", "tiny.yaml", "--time-passes").out.splitlines()
    assert times[-1].endswith("all passes") and len(times) > 10
    wrong = tilth("inspect", "tiny.yaml", "--after", "fuse_epilog")
    assert wrong.code == 1
    assert "no pass `fuse_epilog`; close are fuse_epilogue" in wrong.err and "hint" not in wrong.err
    assert tilth("inspect", "tiny.yaml", "--diff", "fuse_epilog").err == wrong.err


@pytest.mark.parametrize(
    "words",
    [["inspect", "--stage", "plan"], ["compile", "-o", "net.py"], ["bench", "--against", "none"],
     ["run", "--engine", "cpu", "--input", "image=random"]],
)  # fmt: skip
def test_a_width_that_the_machine_lacks_is_refused(specs, tilth, monkeypatch, words):
    monkeypatch.setenv("TILTH_LANES", "5")
    done = tilth(words[0], "tiny.yaml", *words[1:])
    assert done.code == 1
    assert "error[E804]: TILTH_LANES is `5`" in done.err and "internal" not in done.err


def test_a_plan_needs_sizes(specs, tilth):
    (specs / "open.yaml").write_text((specs / "tiny.yaml").read_text().replace(
        "at: {image: [1, 3, 8, 8]}, outputs: {logits: [1,3]}", ""))  # fmt: skip
    done = tilth("inspect", "open.yaml", "--stage", "plan")
    assert done.code == 1
    assert "the sizes `H`, `W` have no value" in done.err
    assert "`--shape H=SIZE`" in done.err


# ---------------------------------------------------------------- run


@pytest.fixture
def photo(specs):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(specs / "photo.png")
    return "photo.png"


def test_run_ranks_classes_of_a_picture(specs, photo, tilth):
    (specs / "labels.txt").write_text("cat\ndog\ncow\n")
    done = tilth(
        "run", "tiny.yaml", "--input", f"image={photo}", "--top", "2", "--labels", "labels.txt"
    )
    assert done.code == 0
    assert "no --weights: the spec's initialisers are used with seed 0" in done.err
    lines = done.out.splitlines()
    assert lines[0] == "logits" and len(lines) == 3
    assert lines[1].split()[2] in ("cat", "dog", "cow")


def test_run_resizes_to_the_sizes_of_the_facts_or_keeps(specs, photo, tilth):
    words = ("run", "tiny.yaml", "--input", f"image={photo}", "--output", "o.npz")
    assert tilth(*words).code == 0
    small = np.load("o.npz")["logits"]
    assert tilth(*words, "--fit", "keep").code == 0
    assert not np.array_equal(small, np.load("o.npz")["logits"])


def test_run_json_has_outputs_and_ranking(specs, tilth):
    words = ("run", "tiny.yaml", "--input", "image=random", "--top", "3", "--json")
    found = tilth(*words).json
    assert found["outputs"] == {"logits": {"dtype": "float32", "shape": [1, 3]}}
    (ranking,) = found["top"]
    assert sorted(row["class"] for row in ranking) == [0, 1, 2]
    assert abs(sum(row["probability"] for row in ranking) - 1) < 1e-6
    assert found == tilth(*words).json
    assert found["top"] != tilth(*words, "--seed", "1").json["top"]


def test_run_reads_weights_and_says_what_it_leaves_out(specs, tilth):
    weights = load("tiny.yaml").initial_weights(5)
    np.savez(specs / "w.npz", **weights)
    words = ("run", "tiny.yaml", "--input", "image=zeros", "--output", "o.npy")
    done = tilth(*words, "--weights", "w.npz")
    assert done.code == 0 and "initialisers" not in done.err
    expected = load("tiny.yaml").run({"image": np.zeros((1, 3, 8, 8))}, seed=5)["logits"]
    np.testing.assert_array_equal(np.load("o.npy"), expected)
    np.savez(specs / "w.npz", **{"fc.weights": weights["fc.weight"]})
    done = tilth(*words, "--weights", "w.npz")
    assert done.code == 1
    assert "error[E801]" in done.err and "did you mean `fc.weights`?" in done.err
    done = tilth(*words, "--weights", "w.npz", "--no-strict")
    assert done.code == 0 and "fc.weights: not in the model" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the inputs are image : f32[N, 3, H, W]"),
        (("--input", "imag=zeros"), "did you mean `image`?"),
        (("--input", "image=none.png"), "error[E803]: cannot read `none.png`"),
        (("--input", "image=zeros", "--weights", "none.npz"), "error[E803]"),
        (("--input", "image=zeros", "--output", "o.txt"), "error[E806]: cannot write `o.txt`"),
        (("--input", "image=zeros", "--top", "1", "--labels", "none"), "error[E803]"),
    ],
)
def test_run_says_what_is_wrong(specs, tilth, words, said):
    done = tilth("run", "tiny.yaml", *words)
    assert done.code == 1
    assert said in done.err


def test_run_answers_the_questions_of_a_model(specs, tilth):
    done = tilth("run", "chain.yaml", "--input", "y=random", "--shape", "T=5")
    assert done.code == 0
    assert "log p" not in done.out


def test_run_usage_faults(specs, tilth):
    assert tilth("run", "tiny.yaml", "--labels", "l.txt").code == 2
    assert tilth("run", "tiny.yaml", "--engine", "quantum").code == 2
    assert tilth("run", "tiny.yaml", "--top", "0").code == 2


# ---------------------------------------------------------------- fmt

UGLY = "tilth: 1\nname: u\nmodel: |\n  input x:f32[N,2]\n  y=x>>relu   # keep\n  output y\n"
NEAT = "tilth: 1\nname: u\nmodel: |\n  input x : f32[N, 2]\n  y = x >> relu  # keep\n  output y\n"


def test_fmt_rewrites_in_place_and_check_only_tells(specs, tilth):
    path = specs / "u.yaml"
    path.write_text(UGLY)
    path.chmod(0o640)
    done = tilth("fmt", "--check", path)
    assert done.code == 1 and "would change" in done.out and path.read_text() == UGLY
    assert tilth("fmt", path).code == 0
    assert path.read_text() == NEAT
    assert path.stat().st_mode & 0o777 == 0o640
    assert tilth("fmt", "--check", path).code == 0
    assert sorted(p.name for p in specs.iterdir() if "part" in p.name) == []


def test_fmt_of_stdin(specs, tilth, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(UGLY.encode())))
    done = tilth("fmt", "-")
    assert done.code == 0 and done.out == NEAT


def test_fmt_goes_on_after_a_broken_file(specs, tilth):
    (specs / "broken.yaml").write_text("tilth: 1\nname: b\nmodel: |\n  y = (\n")
    (specs / "u.yaml").write_text(UGLY)
    done = tilth("fmt", "broken.yaml", "u.yaml")
    assert done.code == 1 and "error[E2" in done.err
    assert (specs / "u.yaml").read_text() == NEAT
    assert tilth("fmt", "none.yaml").code == 1


# ---------------------------------------------------------------- new, schema, zoo, doctor


@pytest.mark.parametrize("kind", STARTERS)
def test_a_starter_checks_and_is_in_style(specs, tilth, kind):
    assert tilth("new", f"my-{kind}.yaml", "--kind", kind).code == 0
    done = tilth("check", f"my-{kind}.yaml")
    assert done.code == 0, done.err
    assert done.out.startswith(f"my_{kind}\n")
    assert tilth("fmt", "--check", f"my-{kind}.yaml").code == 0


def test_the_starter_of_a_net_trains(specs, tilth):
    assert tilth("new", "mine.yaml").code == 0
    how = ["--engine", "reference", "--set", "train.steps=2"]
    done = tilth("train", "mine.yaml", *how)
    assert done.code == 0 and "val accuracy" in done.out, done.err
    assert "in runs/mine" in done.err


def test_a_setting_alone_is_no_section_to_point_at(specs, tilth):
    done = tilth("train", "tiny.yaml", "--set", "train.epochs=2")
    assert done.code == 1 and done.err.startswith("error[E007]: `tiny` does not say what"), done.err


def test_new_overwrites_nothing(specs, tilth):
    before = (specs / "tiny.yaml").read_text()
    done = tilth("new", "tiny.yaml")
    assert done.code == 1 and "exists already" in done.err
    assert (specs / "tiny.yaml").read_text() == before
    assert tilth("new", "model").code == 1
    assert tilth("new", "none/model.yaml").code == 1


def test_schema_is_a_json_schema(specs, tilth):
    schema = tilth("schema").json
    assert "model" in schema["properties"]
    assert tilth("schema", "-o", "s.json").code == 0
    assert json.loads((specs / "s.json").read_text()) == schema


def test_zoo_lists_and_shows(tilth):
    listed = tilth("zoo", "list", "--json").json
    resnet = next(entry for entry in listed if entry["name"] == "resnet")
    assert "resnet50" in resnet["variants"]
    assert "resnet50" in tilth("zoo", "list").out
    text = tilth("zoo", "show", "resnet50").out
    assert text.startswith("tilth: 1\nname: resnet\n")
    assert tilth("zoo", "show", "resnet50", "--json").json["text"] == text
    assert tilth("zoo", "show", "rasnet").code == 1
    assert tilth("zoo").code == 2


def test_doctor(tilth, monkeypatch):
    done = tilth("doctor")
    assert done.code == 0
    assert {"python", "numpy", "memory", "cache", "cuda"} <= {
        line.split()[1] for line in done.out.splitlines()
    }
    found = tilth("doctor", "--json").json
    assert found["numpy"] == {"state": "ok", "text": np.__version__}
    monkeypatch.setenv("TILTH_CACHE", os.devnull + "/cache")
    assert tilth("doctor", "--json").json["cache"]["state"] == "note"


def test_plot_draws_a_run_and_tells_what_is_missing(tilth, tmp_path):
    fold = tmp_path / "x"
    fold.mkdir()
    (fold / "metrics.csv").write_text("step,epoch,part,seconds,loss\n1,1,train,0.1,0.5\n")
    done = tilth("plot", str(fold), "--json")
    assert done.code == 0 and "curves.svg" in done.out and (fold / "curves.png").exists()
    done = tilth("plot", str(tmp_path / "none"))
    assert done.code == 1 and "error[E803]" in done.err


def test_cache_is_shown_and_cleared(tilth, tmp_path, monkeypatch):
    monkeypatch.setenv("TILTH_CACHE", str(tmp_path / "cache"))
    assert tilth("cache", "--json").json["kernels"] == {"files": 0, "bytes": 0}
    kept = tmp_path / "cache" / "kernels" / "key" / "add.bin"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x" * 2048)
    shown = tilth("cache").out
    assert str(tmp_path / "cache") in shown
    assert "1 files" in shown
    assert "freed 2 KiB" in tilth("cache", "--clear").out
    assert not kept.exists()
    assert tilth("cache", "--clear", "--json").json["freed"] == 0


def test_inspect_shows_a_kernels_machine_code(tilth, specs):
    listed = tilth("inspect", "tiny.yaml", "--stage", "asm")
    assert listed.code == 0, listed.err
    names = [line.split()[0] for line in listed.out.splitlines()[1:] if line.strip()]
    conv = next(name for name in names if name.startswith("conv"))
    llvm = tilth("inspect", "tiny.yaml", "--stage", "llvm", "--kernel", conv).out
    assert llvm.startswith("define ")
    assert "@kernel(" in llvm and "fma" in llvm
    assert "cfunc" not in llvm
    asm = tilth("inspect", "tiny.yaml", "--stage", "asm", "--kernel", conv).out
    assert asm.startswith("kernel:\n")
    assert "ret" in asm and ".cfi" not in asm and "tilth_kernels" not in asm
    wrong = tilth("inspect", "tiny.yaml", "--stage", "asm", "--kernel", conv[:-1])
    assert wrong.code == 1
    assert f"did you mean {conv}" in wrong.err
    assert tilth("inspect", "tiny.yaml", "--kernel", conv).code == 2


def test_compile_says_why_a_file_cannot_be_written(tilth, specs):
    done = tilth("compile", "tiny.yaml", "-o", "none/net.py")
    assert done.code == 1
    assert "cannot write `none/net.py`" in done.err
    assert tilth("compile", "tiny.yaml", "-o", "net.txt").code == 2
    done = tilth("compile", "tiny.yaml", "-o", "net.py", "--weights", "none.safetensors")
    assert done.code == 1
    assert "cannot read `none.safetensors`" in done.err
