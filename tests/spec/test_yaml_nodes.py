"""The YAML reader: YAML 1.2 core values, exact places, one message for what it refuses."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tilth.spec.diagnostics import Reporter
from tilth.spec.source import decode, make_source, read_text
from tilth.spec.yaml_nodes import (
    MappingNode,
    ScalarNode,
    SequenceNode,
    describe,
    read_yaml,
    resolve,
)


def parse(text):
    reporter = Reporter({"f.yaml": text})
    return read_yaml(make_source(text, "f.yaml"), reporter), reporter.diagnostics


def plain(node):
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return {entry.key.text: plain(entry.value) for entry in node.entries}


def scalars(node):
    if isinstance(node, ScalarNode):
        return [node]
    if isinstance(node, SequenceNode):
        return [x for item in node.items for x in scalars(item)]
    assert isinstance(node, MappingNode)
    return [x for entry in node.entries for x in (entry.key, *scalars(entry.value))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("4.09e9", 4.09e9),
        ("1E5", 1e5),
        (".5", 0.5),
        ("20.", 20.0),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        ("0o17", 15),
        ("0xff", 255),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("2016-06-27", "2016-06-27"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1e", "1e"),
        ("infinity", "infinity"),
        ("=", "="),
    ],
)
def test_scalars_follow_yaml_1_2_core(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_nan_is_a_number():
    assert resolve(".nan") != resolve(".nan")


def test_quoted_scalars_are_text():
    node, faults = parse("a: '1'\nb: \"true\"\nc: ''\n")
    assert not faults
    assert plain(node) == {"a": "1", "b": "true", "c": ""}


def test_every_scalar_stands_where_its_text_is():
    text = "tïtle: «été»\na: {b: [1, 'two', \"three\"], c: yes}\nd:\n  - x\n  - y: 0.5\n"
    node, faults = parse(text)
    assert not faults
    found = scalars(node)
    for scalar in found:
        assert text[scalar.content.start : scalar.content.end] == scalar.text
        before = text[: scalar.span.start]
        assert scalar.span.line == before.count("\n") + 1
        assert scalar.span.column == len(before) - (before.rfind("\n") + 1) + 1
    assert [s.text for s in found][-5:] == ["yes", "d", "x", "y", "0.5"]


def test_places_are_exact_in_a_crlf_file():
    node, faults = parse("a: é\r\nb: 2\r\nm: |\r\n  x = 1\r\n\r\n  y = 2\r\n")
    assert not faults
    assert isinstance(node, MappingNode)
    b, block = node.entries[1].value, node.entries[2].value
    assert (b.span.line, b.span.column, b.span.start, b.span.end) == (2, 4, 9, 10)
    assert isinstance(block, ScalarNode)
    assert (block.content.line, block.content.column) == (4, 3)
    assert block.text == "x = 1\n\ny = 2\n"


def test_a_block_runs_from_its_first_to_its_last_visible_character():
    text = "m: |  # note\n\n    # first\n    x = 1\n\n\nn: 1\n"
    node, faults = parse(text)
    assert not faults
    assert isinstance(node, MappingNode)
    block = node.entries[0].value
    assert isinstance(block, ScalarNode)
    assert text[block.content.start : block.content.end] == "# first\n    x = 1"
    assert (block.content.line, block.content.column) == (3, 5)


def test_collection_spans_end_with_their_content():
    text = "a: [1, 2]  # no\nb:\n  c: 1\n\n# end\n"
    node, _ = parse(text)
    assert isinstance(node, MappingNode)
    flow, block = node.entries[0].value, node.entries[1].value
    assert text[flow.span.start : flow.span.end] == "[1, 2]"
    assert text[block.span.start : block.span.end] == "c: 1"


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("a: 1\nb: 2\na: 3\n", "E003", "3:1"),
        ("a: &x 1\nb: *x\n", "E005", "1:4"),
        ("b: *x\n", "E005", "1:4"),
        ("a: {<<: {b: 1}}\n", "E005", "1:5"),
        ("a: !!int 3\n", "E005", "1:4"),
        ("a: !mine [1]\n", "E005", "1:4"),
        ("? [1]\n: 2\n", "E006", "1:3"),
        ("a: 99999999999999999999\n", "E006", "1:4"),
        ("a: 1\n---\nb: 2\n", "E002", "2:1"),
        ("a: {b:1}\n", "E002", "1:5"),
        ("a:1\nb: 2\n", "E002", "1:1"),
        ("a: 1\n\tb: 2\n", "E002", "2:1"),
        ("a:\t1\n", "E002", "1:3"),
        ("a: [1, 2\n", "E002", "1:4"),
        ('a: "b "c" d"\n', "E002", "1:7"),
        ("a: 'x\n", "E002", "1:4"),
        ('a: "\\q"\n', "E002", "1:6"),
        ('a: "\\', "E002", "1:6"),
        ('a: "\\UFFFFFFFF"\n', "E002", "1:7"),
        ('a: "\\ud800"\n', "E013", "1:4"),
        ("a: \x07\n", "E013", "1:4"),
        ("a: 1\rb: 2\n", "E013", "1:5"),
        ("a: x\u2028b\n", "E013", "1:5"),
        ("a: 'it's'\n", "E012", "1:7"),
        ("a: 'the nets' own'\n", "E012", "1:13"),
        ("a: {b: f(x, y), c: 1}\n", "E011", "1:8"),
        ("a: [f(x, y), c]\n", "E011", "1:5"),
        ("a: {f(x, y)}\n", "E011", "1:5"),
        ("a: {b: f([1, 2], y)}\n", "E011", "1:8"),
        ("m: |\n  x\n# c\n  y\n", "E010", "3:1"),
        ("m: |\n    x\n  # c\n    y\n", "E010", "3:3"),
        ("m: |\n    x\n  y\n", "E010", "3:3"),
        ("m: |\n  x\ny = 2\n", "E010", "3:1"),
        ("m: |\n# c\n  x = 1\n", "E010", "2:1"),
        ("a:\n  m: |\n    x\n # c\n    y: 1\n", "E010", "4:2"),
    ],
)
def test_one_located_message(text, code, place):
    _, faults = parse(text)
    assert [(d.code, str(d.span)) for d in faults] == [(code, place)]


def test_a_duplicate_key_shows_both_places():
    _, faults = parse("options:\n  a: 1\n  b: 2\n  a: 3\n")
    assert str(faults[0].span) == "4:3"
    assert [str(label.span) for label in faults[0].labels] == ["2:3"]


def test_a_comment_between_sections_is_no_trap():
    node, faults = parse("m: |\n  x = 1\n# about the next\nn: 1\n")
    assert not faults
    assert plain(node) == {"m": "x = 1\n", "n": 1}


def test_a_split_call_leaves_its_neighbours_readable():
    node, faults = parse("a: {b: f(x, y, z), c: 1, d: g(x, y)}\n")
    assert [d.code for d in faults] == ["E011", "E011"]
    assert isinstance(node, MappingNode)
    inner = node.entries[0].value
    assert isinstance(inner, MappingNode)
    assert [e.key.text for e in inner.entries] == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: 1\0", "byte 4 is NUL"),
        (b"a: \xff", "byte 3 is 0xff"),
        ("tilth: 1".encode("utf-16"), "UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0", "NUL"),
    ],
)
def test_bytes_that_are_no_text(data, message):
    reporter = Reporter()
    assert decode(data, "f.yaml", reporter) is None
    assert [d.code for d in reporter.diagnostics] == ["E013"]
    assert message in reporter.diagnostics[0].message


def test_a_byte_order_mark_is_dropped():
    assert decode(b"\xef\xbb\xbfa: 1", "f.yaml", Reporter()) == "a: 1"


def test_files_that_cannot_be_read(tmp_path):
    reporter = Reporter()
    assert read_text(tmp_path / "absent.yaml", reporter, "absent.yaml") is None
    assert read_text(tmp_path, reporter, "folder") is None
    (tmp_path / "large.yaml").write_bytes(b"# " * 2_100_000)
    assert read_text(tmp_path / "large.yaml", reporter, "large.yaml") is None
    assert [d.code for d in reporter.diagnostics] == ["E001", "E001", "E013"]
    assert "`absent.yaml`: no such file" in reporter.diagnostics[0].message


def bomb():
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 100_000, "E207"),
        ("{a: " * 100_000, "E207"),
        ("- " * 100_000, "E207"),
        ("? " * 100_000, "E207"),
        (bomb(), "E005"),
        ("[" + "1, " * 100_000 + "]", "E002"),
    ],
)
def test_hostile_input_gives_one_message_soon(text, code):
    started = time.perf_counter()
    _, faults = parse(text)
    assert [d.code for d in faults] == [code]
    assert time.perf_counter() - started < 2


def test_values_are_described_as_people_say_them():
    node, _ = parse("[1, 0.5, text, true, ~, [], {}]")
    assert isinstance(node, SequenceNode)
    assert [describe(item) for item in node.items] == [
        "the whole number 1",
        "the number 0.5",
        "the text `text`",
        "true",
        "nothing",
        "a list",
        "a mapping",
    ]


TRAPS = (
    "a~b: ~: ~- ~\n~\n  ~[~]~{~}~, ~'~\"~|~>~#~ #~&x ~*x~!t ~<<: ~\t~\r\n~é~\\~---\n~%~@~f(~)~1~?"
)
PIECES = st.sampled_from(TRAPS.split("~"))


@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60)))
@example('"\\U00110000"')
@example("%YAML 1.999\n---\n1")
@example("!<%ff> a")
def test_any_text_gives_a_tree_or_messages(text):
    node, faults = parse(text)
    for fault in faults:
        assert fault.code in {"E002", "E003", "E005", "E006", "E010", "E011", "E012", "E013"}
        assert fault.span is not None
        assert 0 <= fault.span.start <= len(text)
    if node is not None and not faults:
        assert describe(node)
