"""Mutated specs are refused by a located message or give a sound graph; generated nets run."""

import re
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tilth.compiler.interpret import interpret
from tilth.compiler.ir.text import parse_graph, print_graph
from tilth.compiler.ir.verify import verify
from tilth.spec.diagnostics import CODES, Reporter, SpecError
from tilth.spec.elaborate import elaborate
from tilth.spec.envelope import read_envelope

ROOT = Path(__file__).parents[2]
SPECS = sorted([*(ROOT / "zoo_specs").rglob("*.yaml"), *(ROOT / "tests/spec/elaborated").glob("*")])
SPECS = [path for path in SPECS if path.suffix == ".yaml"]
TOKEN = re.compile(r"[A-Za-z_]\w*'?|\d+(?:\.\d+)?(?:e-?\d+)?|>>|\+\+|\.\.|[<>=!]=|\s+|.", re.S)
OPERATORS = ["+", "-", "*", "/", "@", "%", "^", "|", "++", ">>", "..", "==", "<", "and", "~", "="]
NUMBERS = ["0", "1", "2", "3", "7", "64", "1.5", "1e9", "100000000000", "-1"]
SECONDS = 20.0
INTERNAL = re.compile(r"Traceback|Error\b|object at 0x|\w@\w|\w_\d+__|<class|NoneType")


def answer(text):
    """The model, or the refusal; anything else is a failure of the test."""
    reporter = Reporter()
    try:
        envelope = read_envelope(text, "mutant.yaml", reporter)
        if envelope is None:
            reporter.raise_if_failed()
        return elaborate(envelope, reporter)
    except SpecError as error:
        return error


def check(text):
    """A graph that verifies and prints round, or messages with code, place and plain words."""
    start = time.perf_counter()
    found = answer(text)
    if isinstance(found, SpecError):
        assert found.diagnostics
        for fault in found.diagnostics:
            assert fault.code in CODES and fault.message
            assert fault.span is not None or fault.code == "E014", str(found)
            words = f"{fault.message} {fault.found} {fault.hint}"
            assert not INTERNAL.search(words.replace("`", "")), words
    else:
        verify(found.graph)
        assert parse_graph(print_graph(found.graph)) == found.graph
    assert time.perf_counter() - start < SECONDS
    return found


def block_of(text):
    """Where the model block's statements begin and end."""
    begin = text.index("\nmodel: |\n") + len("\nmodel: |\n")
    end = re.search(r"^\S", text[begin:], re.M)
    return begin, begin + end.start() if end else len(text)


def mutate(text, choices):
    """The text with a token-level change for each ``(kind, place, other)``."""
    begin, end = block_of(text)
    tokens = TOKEN.findall(text[begin:end])
    for kind, place, other in choices:
        solid = [i for i, token in enumerate(tokens) if not token.isspace()]
        if not solid:
            break
        here = solid[place % len(solid)]
        there = solid[other % len(solid)]
        names = [token for token in tokens if re.match(r"[A-Za-z_]", token)]
        if kind == "delete":
            tokens[here] = " "
        elif kind == "duplicate":
            tokens[here] = f"{tokens[here]} {tokens[here]}"
        elif kind == "swap":
            tokens[here], tokens[there] = tokens[there], tokens[here]
        elif kind == "number":
            numbers = [i for i in solid if tokens[i][0].isdigit()]
            if numbers:
                tokens[numbers[place % len(numbers)]] = NUMBERS[other % len(NUMBERS)]
        elif kind == "name":
            places = [i for i in solid if re.match(r"[A-Za-z_]", tokens[i])]
            if places:
                tokens[places[place % len(places)]] = names[other % len(names)]
        elif kind == "operator":
            places = [i for i in solid if tokens[i] in OPERATORS]
            if places:
                tokens[places[place % len(places)]] = OPERATORS[other % len(OPERATORS)]
        elif kind == "line":
            lines = "".join(tokens).splitlines(keepends=True)
            del lines[place % len(lines)]
            tokens = TOKEN.findall("".join(lines))
    return text[:begin] + "".join(tokens) + text[end:]


KINDS = ["delete", "duplicate", "swap", "number", "name", "operator", "line"]
CHOICE = st.tuples(st.sampled_from(KINDS), st.integers(0, 4000), st.integers(0, 4000))


@settings(max_examples=150, derandomize=True, deadline=None,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(st.sampled_from(SPECS), st.lists(CHOICE, min_size=1, max_size=3))
def test_mutants_are_refused_or_sound(path, choices):
    check(mutate(path.read_text(encoding="utf-8"), choices))


# ---------------------------------------------------------------- generated nets


class Net:
    """Draws a well-formed net; labels are numbered, so that no two weights share a path."""

    def __init__(self, draw):
        self.draw = draw
        self.labels = 0

    def label(self):
        self.labels += 1
        return f"w{self.labels}"

    def pick(self, low, high):
        return self.draw(st.integers(low, high))

    def conv(self, channels):
        return f"conv({channels}, {2 * self.pick(0, 1) + 1}) as {self.label()}"

    def piece(self, c, depth):
        """``(text, channels)`` of a block that keeps the spatial size; text is one operand."""
        leaves = [self.weightless, self.convolution, self.normalised]
        nests = [self.sum, self.join, self.repeat, self.gate, self.fan, self.bracket]
        if c % 2 == 0:
            nests.append(self.sides)
        kinds = leaves + (nests if depth else [])
        return self.draw(st.sampled_from(kinds))(c, depth - 1)

    def weightless(self, c, depth):
        return self.draw(st.sampled_from(["relu", "tanh", "id", "sigmoid"])), c

    def convolution(self, c, depth):
        channels = self.pick(1, 6)
        return self.conv(channels), channels

    def normalised(self, c, depth):
        return f"bn as {self.label()}", c

    def chain(self, c, depth):
        parts = []
        for _ in range(self.pick(1, 3)):
            text, c = self.piece(c, depth)
            parts.append(text)
        return " >> ".join(parts), c

    def bracket(self, c, depth):
        text, out = self.chain(c, depth)
        return f"({text})", out

    def sum(self, c, depth):
        left, out = self.bracket(c, depth)
        right, other = self.bracket(c, depth)
        if other != out:
            right = f"({right} >> {self.conv(out)})"
        return f"({left} {self.draw(st.sampled_from('+-*'))} {right})", out

    def join(self, c, depth):
        (left, a), (right, b) = self.bracket(c, depth), self.bracket(c, depth)
        return f"({left} ++ {right})", a + b

    def fan(self, c, depth):
        (left, a), (right, b) = self.bracket(c, depth), self.bracket(c, depth)
        return f"(({left}, {right}) >> concat)", a + b

    def sides(self, c, depth):
        (left, a), (right, b) = self.bracket(c // 2, depth), self.bracket(c // 2, depth)
        return f"(split(2) >> ({left} | {right}) >> concat)", a + b

    def repeat(self, c, depth):
        text, out = self.chain(c, depth)
        if out != c:
            text = f"{text} >> {self.conv(c)}"
        return f'({text})^{self.pick(0, 3)} as "{self.label()}_{{i}}"', c

    def gate(self, c, depth):
        return f"(id * (gap >> linear({c}) as {self.label()} >> sigmoid))", c


@st.composite
def nets(draw):
    """``(statements, channels, size)``: a net on images ``[N, 2, size, size]``."""
    net, size, c = Net(draw), draw(st.sampled_from([4, 6, 8])), 2
    statements = [f"input x0 : f32[N, 2, {size}, {size}]"]
    count = net.pick(1, 3)
    for number in range(count):
        text, c = net.chain(c, 3)
        if size % 2 == 0 and net.pick(0, 1):
            down = f"conv({c}, 3, stride=2) as {net.label()}"
            text = f"{text} >> {draw(st.sampled_from(['maxpool(2)', 'avgpool(2)', down]))}"
            size //= 2
        statements.append(f"x{number + 1} = x{number} >> {text}")
    return [*statements, f"output y = x{count}"], c, size


def random_weights(graph):
    rng = np.random.default_rng(0)
    found = {}
    for _, node in graph.of_op("param"):
        values = rng.standard_normal(node.type.shape).astype(np.float32)
        # Running variances must be positive.
        found[str(node.attrs["path"])] = np.abs(values) + 0.5 if node.type.rank == 1 else values
    return found


@settings(max_examples=40, derandomize=True, deadline=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
@given(nets())
def test_generated_nets_have_the_shapes_that_they_run_to(case):
    statements, channels, size = case
    block = "".join(f"  {line}\n" for line in statements)
    found = check(f"tilth: 1\nname: net\nmodel: |\n{block}")
    assert not isinstance(found, SpecError), str(found)
    graph = found.graph
    ((name, value),) = graph.outputs
    assert str(graph.type_of(value)) == f"f32[N, {channels}, {size}, {size}]"
    shape = next(node.type.shape for _, node in graph.of_op("input"))
    image = np.random.default_rng(1).standard_normal((2, *shape[1:])).astype(np.float32)
    result = interpret(graph, {"x0": image}, random_weights(graph))
    assert result[name].shape == (2, channels, size, size)
    assert not np.isnan(result[name]).any()
