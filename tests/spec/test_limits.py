"""Whatever a spec asks for, elaboration ends soon: with a graph or with located messages."""

import sys
import threading
import time

import pytest
from tilth.compiler.ir.text import parse_graph, print_graph
from tilth.compiler.ir.verify import verify
from tilth.spec.diagnostics import Reporter, SpecError
from tilth.spec.elaborate import elaborate
from tilth.spec.elaborate.elaborator import MAX_DEPTH
from tilth.spec.envelope import read_envelope

IMAGE = "input x : f32[N, 64, 56, 56]\n"
SECONDS = 30.0
"""Guard against what does not end: two seconds are the aim, and machines differ."""


def wrap(model, head=""):
    block = "".join(f"  {line}\n" for line in model.splitlines())
    return f"tilth: 1\nname: t\n{head}model: |\n{block}"


def answer(text):
    start = time.perf_counter()
    limit = sys.getrecursionlimit()
    reporter = Reporter()
    try:
        envelope = read_envelope(text, "t.yaml", reporter)
        if envelope is None:
            reporter.raise_if_failed()
        return elaborate(envelope, reporter).graph
    except SpecError as error:
        return error
    finally:
        assert sys.getrecursionlimit() == limit
        assert time.perf_counter() - start < SECONDS


def chain(first, step, count, last):
    """``first``, then ``step`` for 1 to ``count``, then ``last``."""
    return "\n".join([first, *(step.format(i=i, j=i - 1) for i in range(1, count + 1)), last])


REFUSED = {
    # expansions that do not end
    "a recursion": ("def f(n) = f(n + 1)\noutput y = f(0)", "E701", 4),
    "blocks": (IMAGE + "def f(n) = conv(8, 1) >> f(n + 1)\ny = x >> f(0)\noutput y", "E701", 5),
    "an input": (IMAGE + "def f(n) = relu(_) >> f(n + 1)\ny = x >> f(0)\noutput y", "E701", 5),
    "a branch": (
        IMAGE + "def f(n) = if n < 0 then id else (relu >> (id + f(n + 1)))\noutput y = x >> f(0)",
        "E701",
        5,
    ),
    "two definitions": ("def f(n) = g(n)\ndef g(n) = f(n)\noutput y = f(0)", "E701", 5),
    "a body": (
        IMAGE + "def f(n) = fn(a) {\n  b = a >> f(n + 1)\n  output b\n}\noutput y = x >> f(0)",
        "E701",
        6,
    ),
    "a default": ("def f(n, m=f(n + 1)) = m\noutput y = f(0)", "E701", 4),
    "tuples": ("def f(n) = ((((f(n + 1), 1), 1), 1), 1)\ny = f(0)\noutput y", "E701", 4),
    "lists": ("def f(n) = [[[[f(n + 1)]]]]\ny = f(0)\noutput y", "E701", 4),
    "arguments": ("def f(n) = tanh(f(n + 1))\ny = f(0)\noutput y", "E701", 4),
    # expansions that are too large
    "a million copies": (IMAGE + "output y = x >> relu^1000000", "E702", 5),
    "copies of copies": (IMAGE + "output y = x >> (((relu^100)^100)^100)^100", "E702", 5),
    "copies of nothing": (IMAGE + "output y = x >> (((id^1000)^1000)^1000)^1000", "E702", 5),
    "doubling blocks": (
        chain(
            IMAGE + "def f0() = relu", "def f{i}() = f{j}() >> f{j}()", 20, "output y = x >> f20()"
        ),
        "E702",
        None,
    ),
    "doubling numbers": (
        chain("def f0(n) = n", "def f{i}(n) = f{j}(n) + f{j}(n)", 25, "output y = f25(1)"),
        "E702",
        None,
    ),
    "doubling lists": (
        chain("a0 = [1]", "a{i} = a{j} ++ a{j}", 40, "output y = a40"),
        "E702",
        None,
    ),
    "nested lists": (chain("a0 = [1]", "a{i} = [a{j}, a{j}]", 40, "output y = a40"), "E702", None),
    "a long list": ("a = [k for k in 0..1000000000]\noutput y = len(a)", "E702", 4),
    "a square of a list": (
        "a = [1 for k in 0..90000, j in 0..90000]\noutput y = len(a)",
        "E702",
        4,
    ),
    "many parts": (
        "input v : f32[N, 1000000]\noutput y = v >> split(1000000) >> concat",
        "E702",
        5,
    ),
    "a size to a power": (
        chain(
            "input v : f32[K]\na0 = K", "a{i} = a{j} * a{j}", 40, "param w : real[a40]\noutput w"
        ),
        "E702",
        None,
    ),
    "a size through quotients": (
        "input x : f32[N, 3, H, W]\n"
        "output y = x >> (maxpool(2) >> maxpool(3, stride=1) >> upsample(3))^40",
        "E702",
        5,
    ),
    "chained equations": (
        chain("a3000 = 1", "", 0, "\n".join(f"a{i} = a{i + 1} + 1" for i in range(3000)))
        + "\noutput y = a0",
        "E701",
        None,
    ),
    # numbers
    "squares": (chain("a0 = 3", "a{i} = a{j} * a{j}", 60, "output y = a60"), "E408", None),
    "a power": (IMAGE + "output y = x * 2^1000000000", "E408", 5),
    "a power of a power": ("output y = ((2^60)^60)^60", "E408", 4),
    "a real number": ("output y = 1e300 * 1e300", "E408", 4),
    "copies by a power": (IMAGE + "output y = x >> relu^(10^18)", "E702", 5),
    "an option": (IMAGE + "output y = x >> relu^n", "E006", 3),
    # memory
    "an input of terabytes": ("input x : f32[1000000, 1000000, 10]\noutput y = x", "E703", 4),
    "a weight": ("input v : f32[N, 10000000]\noutput y = v >> linear(1000000)", "E703", 5),
    "a kernel": (IMAGE + "output y = x >> conv(8, 1000000001)", "E703", 5),
    "zeros": ("output y = zeros([10000000, 10000000])", "E703", 4),
    "an outer product": (
        "param a : real[2000000]\nparam b : real[2000000]\nC[i, j] = a[i] * b[j]\noutput C",
        "E703",
        6,
    ),
    "an index": ("y[i] = 1.0 for i in 0..1000000000000000\noutput y", "E703", 4),
    "two indices": ("y[i, j] = i * j for i in 0..9999999, j in 0..9999999\noutput y", "E703", 4),
    "a grid": ("index s : grid(1000000, 1000000)\nV[s] = 1.0\noutput V", "E703", 5),
    "classes": ("input k : i32[N]\noutput y = one_hot(k, 1000000000000)", "E703", 5),
    "an upsampling": (IMAGE + "output y = x >> upsample(10000000)", "E703", 5),
    "doubling tensors": (
        chain(IMAGE + "a0 = x", "a{i} = a{j} ++ a{j}", 60, "output y = a60"),
        "E703",
        None,
    ),
    # nothing at all
    "a size of zero": ("input x : f32[N, 3, 0, 4]\noutput y = x", "E106", 4),
    "a pool of zero": (IMAGE + "output y = x >> maxpool(0)", "E408", 5),
    "a slice of zero": ("param w : real[3]\noutput y = w[1..1]", "E106", 5),
    "a sum of zero": ("param w : real[3]\noutput y = sum{i in 0..0} w[i]", "E106", 5),
    "a recurrence of zero": (
        "input x : f32[3]\nh[t] = h[t-1] + x[t] for t in 0..0\noutput h",
        "E106",
        5,
    ),
    "zero parts": (IMAGE + "output y = x >> split(0)", "E408", 5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_time(name):
    model, code, line = REFUSED[name]
    head = "options: {n: 1000000000000000000000}\n" if name == "an option" else ""
    error = answer(wrap(model, head))
    assert isinstance(error, SpecError)
    (fault,) = error.diagnostics
    assert fault.code == code
    assert fault.span is not None and fault.span.file == "t.yaml"
    assert line is None or fault.span.line == line


LEGAL = {
    "zero copies": IMAGE + "output y = x >> relu^0",
    "a chain of nothing": IMAGE + "output y = x >> chain([relu for k in 0..0])",
    "equations in order": chain("a0 = 1", "a{i} = a{j} + 1", 3000, "output y = a3000"),
    "a long chain": IMAGE + "output y = x >> " + " >> ".join(["relu"] * 5000),
    "many pools": "input x : f32[N, 3, H, W]\noutput y = x >> maxpool(3, stride=2)^12",
    "an unrolled family": (
        "input x : f32[N, 4]\nf = [linear(4) for k in 0..500]\na[0] = x\n"
        "a[k+1] = f[k](a[k]) for k in 0..500\noutput y = a[500]"
    ),
}


@pytest.mark.parametrize("name", LEGAL)
def test_large_or_empty_but_legal(name):
    graph = answer(wrap(LEGAL[name]))
    assert not isinstance(graph, SpecError), str(graph)
    verify(graph)
    assert parse_graph(print_graph(graph)) == graph


NESTED = {
    "blocks": (
        "def f(n) = relu >> (((if n > 0 then (relu >> (id + (relu >> (f(n - 1) as q)))) else id)))"
    ),
    "bodies": "def f(n) = fn(a) {\n  b = a >> (if n > 0 then f(n - 1) else id)\n  output b\n}",
    "inputs": "def f(n) = relu(_) + (if n > 0 then f(n - 1) else id)",
}


@pytest.mark.parametrize("name", NESTED)
def test_deep_definitions_expand(name):
    # A definition that waits for its input counts twice: where it is made and where it is applied.
    depth = MAX_DEPTH // 2 - 1
    assert depth >= 199
    graph = answer(wrap(f"{IMAGE}{NESTED[name]}\noutput y = x >> f({depth})"))
    assert not isinstance(graph, SpecError), str(graph)
    verify(graph)


def test_many_definitions_that_call_each_other():
    calls = "\n".join(f"def f{i}(c) = conv(c, 1) >> f{i + 1}(c)" for i in range(180))
    graph = answer(wrap(f"{IMAGE}{calls}\ndef f180(c) = relu\noutput y = x >> f0(8)"))
    assert not isinstance(graph, SpecError), str(graph)


def test_recursion_in_threads_is_refused_too():
    found = []
    text = wrap(REFUSED["tuples"][0])
    threads = [threading.Thread(target=lambda: found.append(read(text))) for _ in range(4)]

    def read(text):
        reporter = Reporter()
        envelope = read_envelope(text, "t.yaml", reporter)
        with pytest.raises(SpecError) as refusal:
            elaborate(envelope, reporter)
        return refusal.value.diagnostics[0].code

    before = sys.getrecursionlimit()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["E701"] * 4
    assert sys.getrecursionlimit() == before


JUNK = {
    "bytes": "\x00\x01\x02\xff" * 100,
    "letters": "\u05d0\ufffd\u200b" * 100,
    "brackets": "([{" * 200,
    "operators": ">> ++ ^ | @ ~" * 50,
    "a line": "x" * 100_000,
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
}


@pytest.mark.parametrize("name", JUNK)
@pytest.mark.parametrize("where", ["file", "model"])
def test_junk_is_refused(name, where):
    error = answer(JUNK[name] if where == "file" else wrap(JUNK[name] + "\noutput y = 1"))
    assert isinstance(error, SpecError)
    assert all(d.message for d in error.diagnostics)
