"""``tilth check``: facts proven and unmet, faults rendered, JSON that is whole when it fails."""

import pytest
from tilth.compiler.cost import cost
from tilth.program import load


def test_facts_are_proven_one_a_line(specs, tilth):
    done = tilth("check", "tiny.yaml")
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["tiny"]
    assert ["parameters", "131", "proven"] in lines
    assert ["macs", "6,924", "proven"] in lines
    assert ["outputs.logits", "[1,", "3]", "proven"] in lines
    assert ["depth", "2", "proven"] in lines
    assert lines[-1] == ["ok:", "4", "facts", "proven"]
    assert done.err == ""


def test_json(specs, tilth):
    found = tilth("check", "tiny.yaml", "--json").json
    assert found["name"] == "tiny" and found["variant"] == "tiny"
    assert found["parameters"] == 131 and found["macs"] == 6924
    assert found["outputs"] == {"logits": [1, 3]}
    assert found["diagnostics"] == []
    assert all(fact["proven"] for fact in found["expectations"])


def test_a_variant_and_all_variants(specs, tilth):
    wide = tilth("check", "tiny.yaml", "--variant", "tiny_wide", "--json").json
    assert (wide["variant"], wide["parameters"]) == ("tiny_wide", 259)
    both = tilth("check", "tiny.yaml", "--all", "--json").json
    assert {report["variant"]: report["parameters"] for report in both} == {
        "tiny": 131,
        "tiny_wide": 259,
    }


def test_overrides_change_the_model_and_leave_the_facts_unchecked(specs, tilth):
    done = tilth("check", "tiny.yaml", "--set", "width=16")
    assert done.code == 0
    assert "options are overridden, so its facts were not checked" in done.out
    assert "515" in done.out


def test_an_unmet_fact_is_E901_at_its_place(specs, tilth):
    text = (specs / "tiny.yaml").read_text().replace("parameters: 131", "parameters: 132")
    (specs / "tiny.yaml").write_text(text)
    done = tilth("check", "tiny.yaml")
    assert done.code == 1
    assert "tiny.yaml:9:22: error[E901]: `parameters` is not what the spec expects" in done.err
    assert "expected 132, found 131" in done.err
    assert "failed: 1 fault; 3 facts proven" in done.out


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ("outputs: {logits: [1, 4]}", "expected [1, 4], found [N, 3]"),
        ("outputs: {logit: [1, 3]}", "did you mean `logits`?"),
        ("at: {imag: [1, 3, 8, 8]}", "did you mean `image`?"),
        ("at: {image: [1, 4, 8, 8]}", "does not fit"),
        ("at: {image: [1, 3, 8]}", "another rank"),
        ("macs: 7e3", "it depends on H, W: fix them under `at:`"),
        ("depth: 3", "expected 3, found 2"),
        ("buffers: 9", "expected 9, found 8"),
    ],
)
def test_every_sort_of_fact_can_fail(specs, tilth, fact, said):
    head, _, tail = (specs / "tiny.yaml").read_text().partition("expect:\n")
    model = tail[tail.index("model:") :]
    (specs / "tiny.yaml").write_text(f"{head}expect:\n  tiny: {{{fact}}}\n{model}")
    done = tilth("check", "tiny.yaml")
    assert done.code == 1
    assert said in done.err
    assert "error[E" in done.err


def test_a_claim_that_check_cannot_prove_is_a_warning(specs, tilth):
    text = (specs / "tiny.yaml").read_text().replace("depth: 2", "top1: 76.1")
    (specs / "tiny.yaml").write_text(text)
    done = tilth("check", "tiny.yaml")
    assert done.code == 0
    assert "warning[E902]: `top1` is not proven by check" in done.err
    assert "ok: 3 facts proven" in done.out
    found = tilth("check", "tiny.yaml", "--json").json
    assert [d["severity"] for d in found["diagnostics"]] == ["warning"]


def test_faults_are_rendered_with_their_place(specs, tilth):
    done = tilth("check", "bad.yaml")
    assert done.code == 1
    assert "bad.yaml:5:" in done.err and "error[E102]" in done.err
    assert "failed: 1 fault" in done.out


def test_json_is_whole_when_the_spec_fails(specs, tilth):
    done = tilth("check", "bad.yaml", "--json")
    assert done.code == 1
    keys = {"name", "variant", "parameters", "macs", "outputs", "diagnostics"}
    assert keys <= done.json.keys()
    (fault,) = done.json["diagnostics"]
    assert (fault["code"], fault["file"], fault["line"]) == ("E102", "bad.yaml", 5)
    assert done.err == ""


def test_several_specs_go_on_after_a_bad_one(specs, tilth):
    done = tilth("check", "bad.yaml", "tiny.yaml", "none.yaml", "--json")
    assert done.code == 1
    assert [report["parameters"] for report in done.json] == [None, 131, None]


def test_faults_of_the_envelope_and_the_model_come_in_one_run(specs, tilth):
    (specs / "two.yaml").write_text("tilth: 1\nname: two\ncolour: red\nmodel: |\n  y = = 1\n")
    found = tilth("check", "two.yaml", "--json").json["diagnostics"]
    assert [fault["line"] for fault in found] == [3, 5]


def test_shapes_fill_in_open_sizes(specs, tilth):
    found = tilth("check", "tiny.yaml", "--variant", "tiny_wide", "--json").json
    assert isinstance(found["macs"], str) and "H" in found["macs"]
    for shape in ("image=1x3x8x8", "image=Nx3x8x8"):
        found = tilth(
            "check", "tiny.yaml", "--variant", "tiny_wide", "--shape", shape, "--json"
        ).json
        assert found["macs"] == 8 * 3 * 9 * 64 + 8 * 3
    assert tilth("check", "tiny.yaml", "--shape", "H=8", "--shape", "W=8").code == 0


def test_shapes_that_do_not_fit(specs, tilth):
    done = tilth("check", "tiny.yaml", "--shape", "image=1x4x8x8")
    assert done.code == 1
    assert "declared f32[N, 3, H, W], given [1, 4, 8, 8]" in done.err
    assert tilth("check", "tiny.yaml", "--shape", "image=1xx8").code == 2
    assert tilth("check", "tiny.yaml", "--shape", "image").code == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none.yaml",), 1, "error[E001]: cannot read `none.yaml`: no such file or directory"),
        (("tinny",), 1, "no spec or variant is called `tinny`"),
        (("tiny.yaml", "--variant", "tiny_wid"), 1, "did you mean `tiny_wide`?"),
        (("tiny.yaml", "--set", "widht=3"), 1, "did you mean `width`?"),
        (("tiny.yaml", "--set", "width=broad"), 1, "`width` must be a number"),
        ((), 2, "required: SPEC"),
    ],
)
def test_messages(specs, tilth, words, code, said):
    done = tilth("check", *words)
    assert done.code == code
    assert said in done.err


def test_rules_for_weights_must_name_weights(specs, tilth):
    with (specs / "tiny.yaml").open("a") as stream:
        stream.write('weights:\n  torch:\n    "head.weight": fc.wieght\n')
    done = tilth("check", "tiny.yaml")
    assert done.code == 1
    assert "the model has no weight `fc.wieght`" in done.err
    assert "did you mean `fc.weight`?" in done.err


def test_rules_may_name_weights_of_another_variant(specs, tilth):
    (specs / "v.yaml").write_text(
        "tilth: 1\nname: v\noptions: {deep: false}\nvariants: {flat: {}, tall: {deep: true}}\n"
        "model: |\n  input x : f32[N, 2]\n"
        "  y = x >> linear(2) as a >> (if deep then linear(2) as b else id)\n  output y\n"
        'weights:\n  torch: {"one": a.weight, "two": b.weight}\n'
    )
    assert tilth("check", "v.yaml", "--all").code == 0


def test_the_report_is_the_cost_of_the_graph(specs):
    program = load("tiny.yaml")
    report = program.check()
    assert report.parameters == cost(program.graph).parameters
