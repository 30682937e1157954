"""The language reference tells the truth: every example on the page is read, run and compared.

``yaml`` fences are whole specs and ``tilth`` fences model blocks; both elaborate and are in the
formatter's style. ``fails=E102`` marks one that must not, ``fragment`` one that is only parsed
(each line a formula), ``section`` YAML sections that are put around a small model. A ``text``
fence behind an example says what it gives: ``message``, ``weights``, ``outputs`` or ``values``.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.types import DTYPES, shape_text
from tilth.proof import prove
from tilth.spec import layout, parser
from tilth.spec.diagnostics import Reporter, SpecError
from tilth.spec.elaborate import builder, domains, elaborate, elaborator
from tilth.spec.elaborate.declarations import DOMAINS
from tilth.spec.envelope import KEYS, read_envelope
from tilth.spec.formatter import format_model, format_spec
from tilth.spec.parser import parse_formula
from tilth.spec.reference import ops_page
from tilth.spec.sections import LEARNERS, SOLVERS, TRAIN_KEYS
from tilth.specs import resolver

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "language.md"
OPS = DOCS / "ops.md"
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
HEAD = "tilth: 1\nname: example\nmodel: |\n"
SMALL = "tilth: 1\nname: example\nmodel: |\n  input x : f32[N, 4]\n  y = x >> linear(2) as fc\n"
LIMITS = {
    "nested brackets": layout.MAX_DEPTH,
    "depth of one expression's tree": parser.MAX_NESTING,
    "definitions inside definitions": elaborator.MAX_DEPTH,
    "copies of `f^n`, items of a list": domains.MAX_UNROLLED,
    "nodes of a graph": builder.MAX_NODES,
    "steps of the expansion": elaborator.MAX_STEPS,
    "one tensor": "1 TB",
    "faults in one file": f"{layout.MAX_FAULTS}, then the rest is not read",
}
RESULTS = ("message", "weights", "outputs", "values")
UPDATE = os.environ.get("TILTH_UPDATE") == "1"


@dataclass(frozen=True)
class Example:
    """A fenced block: its words, its text, its line, and its place in the page."""

    words: tuple
    text: str
    line: int
    start: int
    end: int

    @property
    def fails(self):
        """The diagnostic code that it must give, or None."""
        codes = [word.removeprefix("fails=") for word in self.words if word.startswith("fails=")]
        return codes[0] if codes else None

    def __str__(self):
        return f"line{self.line}"


def examples(page):
    return [
        Example(
            tuple(found["info"].split()),
            found["body"],
            page.count("\n", 0, found.start()) + 1,
            found.start("body"),
            found.end("body"),
        )
        for found in FENCE.finditer(page)
    ]


def results(blocks):
    """Each result block with the example that it belongs to."""
    pairs = []
    for place, block in enumerate(blocks):
        if block.words[:1] == ("text",) and block.words[1:]:
            owner = next(x for x in reversed(blocks[:place]) if x.words[0] != "text")
            pairs.append((owner, block))
    return pairs


def spec_of(example):
    """The text of a whole spec, and the file name that messages give it."""
    if example.words[0] == "tilth":
        rows = [f"  {row}" if row else "" for row in example.text.splitlines()]
        return HEAD + "\n".join(rows) + "\n", "example.yaml"
    if "section" in example.words:
        return SMALL + "  output y\n" + example.text, "example.yaml"
    name = re.search(r"^name: *(\S+)", example.text, re.MULTILINE)
    return example.text, f"{name[1]}.yaml"


def models(example):
    """The elaborated models of all variants, the default one first."""
    text, file = spec_of(example)
    reporter = Reporter({})
    envelope = read_envelope(text, file, reporter)
    reporter.raise_if_failed()
    default = envelope.default_variant
    others = [variant for variant in envelope.variants if variant != default]
    find = resolver(reporter)
    return [elaborate(envelope, reporter, v, resolver=find) for v in (default, *others)]


def answer(example, kind):
    """What a result block must say."""
    if kind == "message":
        with pytest.raises(SpecError) as caught:
            models(example)
        return f"{caught.value}\n"
    graph = models(example)[0].graph
    if kind == "weights":
        nodes = [node for _, node in graph.of_op("param")]
        return "".join(f"{n.attrs['path']} {shape_text(n.type.shape)}\n" for n in nodes)
    if kind == "outputs":
        return "".join(f"{name} : {graph.type_of(value)}\n" for name, value in graph.outputs)
    found = interpret(graph, {}, {}, precision="f64")
    return "".join(f"{name} = {listed(value)}\n" for name, value in found.items())


def listed(value):
    """Numbers to four digits, as a list of lists."""
    whole = value.dtype.kind in "iub"
    return value.tolist() if whole else (np.round(value.astype(float), 4) + 0.0).tolist()


def rewrite():
    """Put examples into the one style and answers into their blocks."""
    for change in (restyled, answer):
        page = PAGE.read_text(encoding="utf-8")
        blocks = examples(page)
        pairs = results(blocks) if change is answer else [(x, x) for x in blocks]
        for example, block in reversed(pairs):
            text = change(example, block.words[-1])
            page = page[: block.start] + text + page[block.end :]
        PAGE.write_text(page, encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    for key, limit in shown_limits().items():
        page = re.sub(rf"^\| {re.escape(key)} \|.*$", f"| {key} | {limit} |", page, flags=re.M)
    PAGE.write_text(page, encoding="utf-8")
    OPS.write_text(ops_page(), encoding="utf-8")


def shown_limits():
    """Each limit as the page writes it."""
    return {k: f"{x:,}".replace(",", " ") if isinstance(x, int) else x for k, x in LIMITS.items()}


def restyled(example, kind=""):
    """The example as the formatter writes it."""
    if example.fails or "fragment" in example.words or example.words[0] == "text":
        return example.text
    if example.words[0] == "tilth":
        return format_model(example.text)
    return format_spec(example.text, "page")


if UPDATE:
    rewrite()
ALL = examples(PAGE.read_text(encoding="utf-8"))
SPECS = [x for x in ALL if x.words[:1] in (("yaml",), ("tilth",)) and "fragment" not in x.words]
FRAGMENTS = [x for x in ALL if "fragment" in x.words]


def test_every_fence_is_known():
    first = {block.words[0] for block in ALL}
    assert first <= {"yaml", "tilth", "text"}
    kinds = {block.words[1] for _, block in results(ALL)}
    assert kinds <= set(RESULTS)
    assert len(SPECS) >= 45
    failing = {x.line for x in SPECS if x.fails}
    shown = {owner.line for owner, block in results(ALL) if block.words[1] == "message"}
    assert failing == shown


@pytest.mark.parametrize("example", SPECS, ids=str)
def test_example_elaborates(example):
    if example.fails is None:
        assert models(example)
        return
    with pytest.raises(SpecError) as caught:
        models(example)
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {example.fails}


@pytest.mark.parametrize(("example", "block"), results(ALL), ids=str)
def test_result(example, block):
    assert answer(example, block.words[1]) == block.text


@pytest.mark.parametrize("example", [x for x in SPECS if not x.fails], ids=str)
def test_example_is_in_the_one_style(example):
    assert restyled(example) == example.text


@pytest.mark.parametrize("example", FRAGMENTS, ids=str)
def test_fragment_parses(example):
    for row in example.text.splitlines():
        reporter = Reporter({"page": row})
        assert parse_formula(row, 0, len(row), "page", reporter) is not None, row
        reporter.raise_if_failed()


def test_links_inside_the_page():
    page = PAGE.read_text(encoding="utf-8")
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


def test_facts_of_examples_are_proven():
    stated = [x for x in SPECS if x.words == ("yaml",) and re.search("^expect:", x.text, re.M)]
    assert stated
    for example in stated:
        reports = [prove(model, model.graph, elsewhere=set) for model in models(example)]
        assert reports[0].proofs and not any(report.diagnostics for report in reports)


def test_limits():
    page = PAGE.read_text(encoding="utf-8")
    found = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.M))
    assert found.items() >= shown_limits().items()


def test_every_key_and_method_is_named():
    page = PAGE.read_text(encoding="utf-8")
    names = [key.name for key in (*KEYS, *TRAIN_KEYS)]
    names += [*SOLVERS, *LEARNERS, *DOMAINS]
    assert [name for name in names if f"`{name}`" not in page] == []
    assert [dtype for dtype in DTYPES if not re.search(rf"\b{dtype}\b", page)] == []


def test_table_of_ops_is_up_to_date():
    assert OPS.read_text(encoding="utf-8") == ops_page()
