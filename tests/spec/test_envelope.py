"""The envelope: what a good file gives, where things stand, and options by variant and override."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilth.spec.diagnostics import CODES, Reporter, SpecError, render_all
from tilth.spec.envelope import load_envelope, read_envelope
from tilth.spec.source import decode

GOOD = """\
tilth: 1
name: resnet
title: Deep Residual Learning — for Image Recognition
source: He, Zhang, Ren, Sun. CVPR 2016. arXiv:1512.03385
implements: [resnet, wide_resnet]
dtype: f32
options: {block: bottleneck, depths: [3, 4, 6, 3], classes: 1000, rate: 1e-3, stem: no}
defaults: {conv: {bias: false, init: he}}
variants:
  resnet18: {block: basic, depths: [2, 2, 2, 2]}
  resnet50: {}
expect:
  resnet50:
    parameters: 25557032
    macs: 4.09e9
    outputs: {logits: [1, 1000]}
    at: {image: [1, 3, 224, 224], T: 10}
    top1: 0.76
use: {v: vgg}
model: |
  # stem
  input image : f32[N, 3, H, W]

  output image
train:
  data: digits
  objective: |
    input label : i32[N]
    loss = cross_entropy(image, label)
  optimizer: sgd(lr=0.1, momentum=0.9)
solve: {method: value_iteration}
learn: {method: q_learning}
data: {digits: digits}
weights: {torch: {"weight_ih_l0[0:H]": W_i}}
"""
MINIMAL = "tilth: 1\nname: tiny\nmodel: |\n  x = 1\n"


def read(text, file="spec.yaml"):
    reporter = Reporter()
    return read_envelope(text, file, reporter), reporter


def good(text=GOOD):
    envelope, reporter = read(text)
    assert not reporter.diagnostics, render_all(reporter.diagnostics, reporter.sources)
    assert envelope is not None
    return envelope


def codes(text):
    return [d.code for d in read(text)[1].diagnostics]


def test_plain_keys():
    envelope = good()
    assert envelope.name == "resnet"
    assert envelope.title == "Deep Residual Learning — for Image Recognition"
    assert envelope.source == "He, Zhang, Ren, Sun. CVPR 2016. arXiv:1512.03385"
    assert envelope.dtype == "f32"
    assert [x.value for x in envelope.implements] == ["resnet", "wide_resnet"]
    assert str(envelope.implements[1].span) == "5:22"
    assert {k: v.value for k, v in envelope.use.items()} == {"v": "vgg"}
    assert str(envelope.spans["title"]) == "3:8"


def test_options_keep_values_and_places():
    options = good().options
    assert {k: v.value for k, v in options.items()} == {
        "block": "bottleneck",
        "depths": (3, 4, 6, 3),
        "classes": 1000,
        "rate": 1e-3,
        "stem": "no",
    }
    assert str(options["depths"].key_span) == "7:30"
    assert str(options["depths"].span) == "7:38"
    assert GOOD[options["depths"].span.start : options["depths"].span.end] == "[3, 4, 6, 3]"


def test_defaults_and_variants():
    envelope = good()
    assert envelope.defaults["conv"].values["bias"].value is False
    assert envelope.defaults["conv"].values["init"].value == "he"
    assert str(envelope.defaults["conv"].key_span) == "8:12"
    assert envelope.variants["resnet18"].values["depths"].value == (2, 2, 2, 2)
    assert not envelope.variants["resnet50"].values


def test_the_model_is_a_stretch_of_the_file():
    model = good().model
    assert model.text.startswith("# stem\n  input image")
    assert model.text.endswith("output image")
    assert GOOD[model.span.start : model.span.end] == model.text
    assert (model.span.line, model.span.column) == (21, 3)


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t])
def test_line_ends_and_byte_order_mark_do_not_move_places(change):
    envelope, plain = good(change(GOOD)), good()
    text = envelope.document.text
    assert (envelope.model.span.line, envelope.model.span.column) == (21, 3)
    assert text[envelope.model.span.start : envelope.model.span.end] == envelope.model.text
    assert envelope.model.text.split() == plain.model.text.split()
    assert str(envelope.options["rate"].span) == str(plain.options["rate"].span)
    assert envelope.expect["resnet50"].facts["macs"].text == "4.09e9"


def test_a_fault_after_crlf_and_accents_is_at_its_place():
    _, reporter = read("tilth: 1\r\nname: tiny\r\ntitle: é\r\nétage: 1\r\nmodel: |\r\n  x = 1\r\n")
    fault = reporter.diagnostics[0]
    assert (fault.code, str(fault.span)) == ("E004", "4:1")
    _, reporter = read("tilth: 1\nname: tiny\noptions: {a: 'é', b: {}}\nmodel: |\n  x = 1\n")
    assert [(d.code, str(d.span)) for d in reporter.diagnostics] == [("E006", "3:22")]


def test_expectations():
    expectation = good().expect["resnet50"]
    assert expectation.facts["parameters"].value == 25557032
    assert expectation.outputs == {"logits": (1, 1000)}
    assert expectation.at == {"image": (1, 3, 224, 224), "T": 10}
    assert expectation.facts["top1"].value == 0.76
    assert str(expectation.facts["macs"].span) == "15:11"


@pytest.mark.parametrize(
    ("fact", "actual", "agrees"),
    [
        ("25557032", 25557032, True),
        ("25557032", 25557033, False),
        ("4.09e9", 4_089_184_256, True),
        ("4.09e9", 4_094_999_999, True),
        ("4.09e9", 4_095_000_001, False),
        ("4.09e9", 4_084_999_999, False),
        ("0.76", 0.7613, True),
        ("0.76", 0.77, False),
        ("0.760", 0.7613, False),
        ("2e3", 2400, True),
        ("2.0e3", 2400, False),
        ("1.5", float("nan"), False),
        ("1.5", float("inf"), False),
    ],
)
def test_a_fact_agrees_to_the_digits_written(fact, actual, agrees):
    expect = f"expect: {{tiny: {{count: {fact}}}}}\n"
    found = good(MINIMAL + expect).expect["tiny"].facts["count"]
    assert found.agrees(actual) is agrees


def test_all_faults_of_a_file_come_in_one_run():
    text = "tilth: 2\nnaem: x\ntitle: 3\noptions: {a: ~}\nvariants: {v: {b: 1}}\nmodel: |\n  x\n"
    assert codes(text) == ["E008", "E004", "E006", "E006", "E007", "E015"]


def test_a_file_with_faults_still_gives_its_model():
    envelope, reporter = read("tilth: 1\nnaem: x\nmodel: |\n  x = 1\n", "dir/tiny.yaml")
    assert envelope is not None
    assert (envelope.name, envelope.model.text) == ("tiny", "x = 1")
    assert reporter.failed


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "E007"),
        ("# only a comment\n", "E007"),
        ("---\n", "E007"),
        ("- 1\n", "E006"),
        ("resnet\n", "E006"),
        ("tilth: 1\nname: a\n", "E007"),
        ("tilth: 1\nname: a\nmodel: >\n  x = 1\n", "E009"),
        ('tilth: 1\nname: a\nmodel: "x = 1"\n', "E009"),
        ("tilth: 1\nname: a\nmodel: x = 1\n", "E009"),
        ("tilth: 1\nname: a\nmodel:\n  x: 1\n", "E009"),
        ("tilth: 1\nname: a\nmodel: |\n\ntitle: b\n", "E007"),
    ],
)
def test_no_envelope_without_a_model(text, code):
    envelope, reporter = read(text)
    assert envelope is None
    assert [d.code for d in reporter.diagnostics] == [code]


@pytest.mark.parametrize(
    ("variants", "default"),
    [
        ("", None),
        ("variants: {small: {n: 1}, tiny: {n: 2}, base: {}}\n", "tiny"),
        ("variants: {small: {n: 1}, base: {}, other: {}}\n", "base"),
        ("variants: {small: {n: 1}, large: {n: 3}}\n", "small"),
    ],
)
def test_the_default_variant(variants, default):
    assert good(MINIMAL + "options: {n: 0}\n" + variants).default_variant == default


def values(envelope, *arguments):
    return {name: x.value for name, x in envelope.options_for(*arguments).items()}


def test_options_come_from_file_variant_and_overrides():
    envelope = good()
    assert values(envelope) == values(envelope, "resnet50") == values(envelope, "resnet")
    assert values(envelope, "resnet18")["depths"] == (2, 2, 2, 2)
    found = values(envelope, "resnet18", ["depths=[3, 4, 23, 3]", "rate = 2", "stem= off"])
    assert found["depths"] == (3, 4, 23, 3)
    assert (found["rate"], found["stem"], found["block"]) == (2, "off", "basic")


def test_an_override_may_be_of_any_kind_that_the_spec_uses():
    text = MINIMAL + "options: {se: false}\nvariants: {a: {}, b: {se: 16}}\n"
    assert values(good(text), "a", ["se=4"]) == {"se": 4}
    with pytest.raises(SpecError) as caught:
        good(text).options_for("a", ["se=[4]"])
    assert "must be true or false or a number" in str(caught.value)


def test_wrong_overrides_are_all_reported_at_their_places():
    bad = ["dephts=3", " depths=3", "classes={a: 1}", "rate=", "x y", "rate=[1, "]
    with pytest.raises(SpecError) as caught:
        good().options_for("resnet19", bad)
    found = [(d.code, str(d.span) if d.span else None) for d in caught.value.diagnostics]
    assert found == [
        ("E014", None),
        ("E015", "1:1"),
        ("E006", "2:9"),
        ("E006", "3:9"),
        ("E006", "4:6"),
        ("E006", "5:1"),
        ("E002", "6:10"),
    ]
    assert "hint: did you mean `depths`?" in str(caught.value)


def test_load_reads_a_file(tmp_path: Path):
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL)
    reporter = Reporter()
    envelope = load_envelope(path, reporter)
    assert envelope is not None and envelope.name == "tiny"
    assert load_envelope(tmp_path / "no.yaml", reporter, "no.yaml") is None
    assert [d.code for d in reporter.diagnostics] == ["E001"]


def check_never_raises(text):
    reporter = Reporter()
    envelope = read_envelope(text, "f.yaml", reporter)
    rendered = render_all(reporter.diagnostics, reporter.sources)
    assert envelope is not None or rendered
    assert all(d.code in CODES for d in reporter.diagnostics)


@given(st.binary(max_size=200))
def test_random_bytes_give_messages(data):
    reporter = Reporter()
    text = decode(data, "f.yaml", reporter)
    if text is None:
        assert [d.code for d in reporter.diagnostics] == ["E013"]
    else:
        check_never_raises(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutations_of_a_good_file_give_messages_or_an_envelope(data):
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 0, 1, 1, 5, 40])))
        pieces = ["", "\t", "\n", "\r\n", ": ", "- ", "'", "[", "}", "(", "&a ", "é", "1e999", "|"]
        text = text[:start] + data.draw(st.sampled_from(pieces)) + text[end:]
    check_never_raises(text)
