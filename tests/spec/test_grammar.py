"""Precedence, layout and recovery of the parser, against trees written by hand."""

import pytest
from lark import Lark
from tilth.spec.diagnostics import Reporter
from tilth.spec.parser import GRAMMAR, parse_formula, parse_model
from tilth.spec.syntax import (
    Argument,
    Binary,
    Binder,
    Block,
    Boolean,
    Call,
    Comprehension,
    Conditional,
    Definition,
    Draw,
    Equation,
    Factor,
    Fix,
    Fn,
    ForClause,
    Group,
    Index,
    Input,
    Interval,
    Iterate,
    Label,
    List,
    Member,
    Name,
    NameSet,
    Number,
    Output,
    Parameter,
    Pipe,
    Reduction,
    Result,
    String,
    Subscript,
    Target,
    Tuple,
    TypeExpr,
    Unary,
    WholeAxis,
    walk,
)

a, b, c, d, f, g, k, n, x, y = map(Name, "abcdfgknxy")
one, two = Number(1), Number(2)


def model(text, start=0, end=None):
    reporter = Reporter({"m": text})
    statements = parse_model(text, start, len(text) if end is None else end, "m", reporter)
    return statements, sorted(reporter.diagnostics, key=lambda d: (d.span.line, d.span.column))


def parse(text):
    statements, faults = model(text)
    assert not faults, faults
    return statements


def faults_of(text):
    return [(d.code, d.span.line, d.span.column, d.message) for d in model(text)[1]]


def formula(text):
    reporter = Reporter({"m": text})
    tree = parse_formula(text, 0, len(text), "m", reporter)
    assert not reporter.diagnostics, reporter.diagnostics
    return tree


def call(function, *args):
    return Call(function, tuple(Argument(arg) for arg in args))


def let(name, value):
    return Equation((Target(name),), value)


def reduce(kind, body, *names, condition=None):
    return Reduction(kind, tuple((name, None) for name in names), condition, body)


# Each row has one pair of neighbours in the page's table of precedence.
PRECEDENCE = {
    # call and index bind tighter than ^
    "a^f(b)": Binary("^", a, call(f, b)),
    "a(b)^c": Binary("^", call(a, b), c),
    "a^x[k]": Binary("^", a, Subscript(x, (k,))),
    "a.b(c)[k]": Subscript(call(Member(a, "b"), c), (k,)),
    "a^-b": Binary("^", a, Unary("-", b)),
    "a^-b(c)": Binary("^", a, Unary("-", call(b, c))),
    # ^ tighter than as
    "f^n as x": Label(Binary("^", f, n), "x"),
    'f^n as "l{i+1}"': Label(Binary("^", f, n), "l{i+1}", True),
    # as tighter than unary - and reducers
    "-a as b": Unary("-", Label(a, "b")),
    "sum{k} a as b": reduce("sum", Label(a, "b"), "k"),
    "-a^b": Unary("-", Binary("^", a, b)),
    "- -a": Unary("-", Unary("-", a)),
    # unary - tighter than * / @ %
    "-a * b": Binary("*", Unary("-", a), b),
    "a * -b": Binary("*", a, Unary("-", b)),
    "a * -b / c": Binary("/", Binary("*", a, Unary("-", b)), c),
    # * / @ % associate to the left
    "a / b * c": Binary("*", Binary("/", a, b), c),
    "a @ b % c": Binary("%", Binary("@", a, b), c),
    # a reducer takes the product to its right and stops at + -
    "sum{k} a * b": reduce("sum", Binary("*", a, b), "k"),
    "sum{k} a * b + c": Binary("+", reduce("sum", Binary("*", a, b), "k"), c),
    "sum{k} a - b": Binary("-", reduce("sum", a, "k"), b),
    "a * sum{k} b * c": Binary("*", a, reduce("sum", Binary("*", b, c), "k")),
    "a / sum{k} b @ c": Binary("/", a, reduce("sum", Binary("@", b, c), "k")),
    "-sum{k} a * b": Unary("-", reduce("sum", Binary("*", a, b), "k")),
    "a * -sum{k} b": Binary("*", a, Unary("-", reduce("sum", b, "k"))),
    "sum{k} -a * b": reduce("sum", Binary("*", Unary("-", a), b), "k"),
    "max{k} sum{n} a * b": reduce("max", reduce("sum", Binary("*", a, b), "n"), "k"),
    "sum{k} a >> f": Pipe((reduce("sum", a, "k"), f)),
    "sum{k} a == b": Binary("==", reduce("sum", a, "k"), b),
    "f(sum{k} a, b)": call(f, reduce("sum", a, "k"), b),
    # * tighter than >>
    "a * b >> c": Pipe((Binary("*", a, b), c)),
    "a >> b * c": Pipe((a, Binary("*", b, c))),
    "a >> b as c >> d^n": Pipe((a, Label(b, "c"), Binary("^", d, n))),
    # >> tighter than + - ++
    "a >> b + c": Binary("+", Pipe((a, b)), c),
    "a + b >> c": Binary("+", a, Pipe((b, c))),
    "a >> b ++ c - d": Binary("-", Binary("++", Pipe((a, b)), c), d),
    # + - ++ tighter than |
    "a + b | c": Binary("|", Binary("+", a, b), c),
    "a | b ++ c": Binary("|", a, Binary("++", b, c)),
    "a | b | c": Binary("|", Binary("|", a, b), c),
    # | tighter than .. tighter than comparisons
    "a | b..c": Interval(Binary("|", a, b), c),
    "a..b + one": Interval(a, Binary("+", b, Name("one"))),
    "a..b == c..d": Binary("==", Interval(a, b), Interval(c, d)),
    "a + b < c * d": Binary("<", Binary("+", a, b), Binary("*", c, d)),
    # comparisons tighter than not, and, or
    "not a == b": Unary("not", Binary("==", a, b)),
    "not not a": Unary("not", Unary("not", a)),
    "not a and b": Binary("and", Unary("not", a), b),
    "a and b or c and d": Binary("or", Binary("and", a, b), Binary("and", c, d)),
    "a or b and c": Binary("or", a, Binary("and", b, c)),
    "a or b or c": Binary("or", Binary("or", a, b), c),
    # a condition takes all that follows
    "if a then b else c >> d": Conditional(a, b, Pipe((c, d))),
    "if a or b then c + d else if x then y else k": Conditional(
        Binary("or", a, b), Binary("+", c, d), Conditional(x, y, k)
    ),
    "(if a then b else c) >> d": Pipe((Group(Conditional(a, b, c)), d)),
    # brackets
    "(a + b) * c": Binary("*", Group(Binary("+", a, b)), c),
    "(a >> b) >> c": Pipe((Group(Pipe((a, b))), c)),
    "(a,)": Tuple((a,)),
    "(a, b,)": Tuple((a, b)),
    "[]": List(()),
    "[a, b]": List((a, b)),
    "f()": Call(f, ()),
    "f(a, k=b, 1: c,)": Call(f, (Argument(a), Argument(b, "k"), Argument(c, None, one))),
    "x[:, (a, b), c..d]": Subscript(x, (WholeAxis(), Tuple((a, b)), Interval(c, d))),
    "[a for b, c in d if x]": Comprehension(a, ForClause((Binder((("b",), ("c",)), d),), x)),
    # atoms
    "1e-3": Number(0.001),
    "4.09e9": Number(4.09e9),
    "0..2": Interval(Number(0), two),
    "1.5..2.5": Interval(Number(1.5), Number(2.5)),
    '"a # b"': String("a # b"),
    "true or false": Binary("or", Boolean(True), Boolean(False)),
    "x' - x": Binary("-", Name("x'"), x),
    "max(a, b) + min": Binary("+", call(Name("max"), a, b), Name("min")),
    "E{x} max{k in 0..n if a} y": reduce(
        "E", Reduction("max", (("k", Interval(Number(0), n)),), a, y), "x"
    ),
}


@pytest.mark.parametrize("text", PRECEDENCE, ids=str)
def test_precedence(text):
    assert formula(text) == PRECEDENCE[text]


@pytest.mark.parametrize(
    "text", ["a < b < c", "a^b^c", "a..b..c", "f as a as b", "a == not b", "(a,,)", "[,]", "f(,)"]
)
def test_not_an_expression(text):
    reporter = Reporter({"m": text})
    assert parse_formula(text, 0, len(text), "m", reporter) is None
    assert [d.code for d in reporter.diagnostics] == ["E201"]


STATEMENTS = {
    "y = x": let("y", x),
    "y, a[k] = x": Equation((Target("y"), Target("a", (k,))), x),
    "y[k] ~ x for k in 0..n if a": Draw(
        (Target("y", (k,)),), x, ForClause((Binder((("k",),), Interval(Number(0), n)),), a)
    ),
    "y = x for (a, b) in c, k in n": Equation(
        (Target("y"),), x, ForClause((Binder((("a", "b"),), c), Binder((("k",),), n)))
    ),
    "def f = x": Definition("f", (), x),
    "def f() = x": Definition("f", (), x),
    "def f(a, b=1) = x": Definition("f", (Parameter("a"), Parameter("b", one)), x),
    "def f { output x }": Definition("f", (), Block((Output((Result(x),)),))),
    "def f(a) = {\n y = x\n output y\n}": Definition(
        "f", (Parameter("a"),), Block((let("y", x), Output((Result(y),))))
    ),
    "factor -x": Factor(Unary("-", x)),
    "fix { x = f(x) }": Fix((), Block((let("x", call(f, x)),))),
    "fix(a=1) { x = f(x) }": Fix((Argument(one, "a"),), Block((let("x", call(f, x)),))),
    "iterate { x' = y } until x < 1": Iterate((), Block((let("x'", y),)), Binary("<", x, one)),
    "input a, b : f32[2, n]": Input(("a", "b"), TypeExpr("f32", (two, n))),
    "index k : {a, b}": Index(("k",), NameSet(("a", "b"))),
    "index a, b : 0..n": Index(("a", "b"), Interval(Number(0), n)),
    "output x, y = a": Output((Result(x), Result(a, "y"))),
    "f = fn(a, b) { output b, a }": let(
        "f", Fn(("a", "b"), Block((Output((Result(b), Result(a))),)))
    ),
}


@pytest.mark.parametrize("text", STATEMENTS, ids=str)
def test_statement(text):
    assert parse(text) == (STATEMENTS[text],)


# ---------------------------------------------------------------- layout

SUM = let("y", Binary("+", a, b))


@pytest.mark.parametrize(
    "text",
    [
        "y = a + b",
        "y = a +\n  b",
        "y = a\n  + b",
        "y =\n\n  a\n\n  + b\n",
        "y\n= a + b",
        "y = a +  # first\n  # second\n  b",
        "y = a  # first\n  # second\n  + b",
        "y = a + b\r\n",
        "y = a\r\n  + b\r\n",
        "\ty\t=\ta\n\t+ b\t",
        "# only\n\ny = a + b # a comment = with signs (",
    ],
    ids=repr,
)
def test_one_sum_over_lines(text):
    assert parse(text) == (SUM,)


@pytest.mark.parametrize(
    "operator", [">>", "+", "-", "++", "*", "/", "@", "%", "|", "..", "==", "and", "or", "^"]
)
def test_a_line_is_open_before_and_after_an_infix_operator(operator):
    whole = parse(f"y = a {operator} b")
    assert parse(f"y = a {operator}\nb") == whole
    assert parse(f"y = a\n{operator} b") == whole


@pytest.mark.parametrize(
    "text, count",
    [
        ("y = a\nx = b", 2),
        ("y = a\n(b)", 1),
        ("y = f\n[a]", 1),
        ("y = f(a,\n  b\n)\nx = b", 2),
        ("y = [a,\n\n b]", 1),
        ("y = sum{k in 0..n\n if a} x[k]\nx = b", 2),
        ("index k : {a,\n  b\n}\nx = b", 2),
        ("y = (sum{k}\nx[k])\nx = b", 2),
        ("y = (a +\ninput as b)\nx = b", 2),
        ("y = (a +\ninput and b)\nx = b", 2),
        ("param a :\nreal = b\nx = b", 2),
        ("output a,\ny = b\nx = b", 2),
        ("y,\na = b", 1),
        ("y[k] = x[k]\n  for k in 0..n\n  if a", 1),
        ("y = if a\n then b\n else c", 1),
        ("fix {\n\n x = y\n\n y = x\n}\n", 1),
        ("def f(a) {\n y = a\n   + b\n output y }", 1),
        ("y = f >> (fn(a, b) {\n  x = a\n  output x\n}) >> g", 1),
        ("iterate {\n x' = y\n}\nuntil x < 1", 1),
    ],
    ids=repr,
)
def test_where_statements_end(text, count):
    assert len(model(text)[0]) == count


def test_words_are_keywords_only_where_a_statement_starts():
    (made,) = parse("y = gather(x, index=k, output=n) + input[state]")
    index, output = made.value.left.args[1:]
    assert (index.name, output.name) == ("index", "output")
    assert made.value.right == Subscript(Name("input"), (Name("state"),))
    (made,) = parse("y = f(a,\n  index=k,\n  def=n)")
    assert [arg.name for arg in made.value.args] == [None, "index", "def"]
    (block,) = parse("fix {\n  const a = 1\n  y = const\n}")
    assert block.body.body[1] == let("y", Name("const"))


def test_positions_inside_a_larger_text():
    text = "tilth: 1\nmodel: |\n  y = a\n    >> f(b) as c  # é\n  x = sum{k} d[k]\nend: (("
    start, end = text.index("  y ="), text.index("end:")
    statements, faults = model(text, start, end)
    assert not faults
    seen = set()
    for node in (node for statement in statements for node in walk(statement)):
        span = node.span
        before = text[: span.start]
        assert (span.line, span.column) == (
            before.count("\n") + 1,
            len(before) - before.rfind("\n"),
        )
        seen.add(text[span.start : span.end])
    assert {"y", "a\n    >> f(b) as c", "f(b) as c", "f(b)", "sum{k} d[k]", "d[k]", "k"} <= seen
    assert seen >= {"y = a\n    >> f(b) as c", "x = sum{k} d[k]"}


def test_faults_have_positions_in_the_larger_text():
    text = "model: |\n\n  y = a b\n  x = (a\n"
    _, faults = model(text, text.index("  y"))
    assert [(d.code, str(d.span)) for d in faults] == [("E201", "3:9"), ("E203", "4:7")]


# ---------------------------------------------------------------- faults and recovery


def test_each_faulty_statement_gives_one_message():
    text = "y = a b\nx = 1\ninput : f32\nz = 2 +\n"
    statements, faults = model(text)
    assert [s.targets[0].name for s in statements] == ["x"]
    assert [(d.code, d.span.line) for d in faults] == [("E201", 1), ("E201", 3), ("E205", 4)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("y = f(a\nx = 1", [("E203", 1)]),
        ("y = f(a(b)\nx = 1", [("E203", 1)]),
        ("y = (sum{k} a[k]\nx = 1", [("E203", 1)]),
        ("y = f(a,\ninput x : f32\nz = a b", [("E203", 1), ("E201", 3)]),
        ("y = f(a +\nx = 1\nz = )", [("E203", 1), ("E203", 3)]),
        ("y = f(a]\nx = 1", [("E203", 1)]),
        ("y = f([a)\nx = 1\nz = 2 $ 3", [("E203", 1), ("E202", 3)]),
        ("y = a)\nx = 1", [("E203", 1)]),
        ("fix {\n  y = (a\n  z = 1\n}\nx = 1", [("E203", 2)]),
        ("y = a ; b ; c\nx = 1", [("E202", 1)]),
        ("y = 'a'\nx = 1", [("E202", 1)]),
        ('y = "a\nx = 1', [("E202", 1)]),
        ("$\nx = 1", [("E202", 1)]),
    ],
    ids=repr,
)
def test_a_fault_of_layout_costs_one_statement(text, expected):
    statements, faults = model(text)
    assert [(d.code, d.span.line) for d in faults] == expected
    if "x = 1" in text and "input" not in text:
        assert let("x", one) in statements


def test_messages_name_what_was_expected_and_found():
    assert faults_of("y = a b") == [
        ("E201", 1, 7, "unexpected `b`: expected an operator, `for` or the end of the line")
    ]
    assert faults_of("y = f(a b)") == [
        ("E201", 1, 9, "unexpected `b`: expected an operator, `)`, `,`, `:` or `=`")
    ]
    assert faults_of("y =") == [
        ("E205", 1, 4, "the statement ends too early: expected an expression")
    ]
    assert faults_of("def if(x) = y") == [("E206", 1, 5, "`if` is a keyword: expected a name")]


def test_one_formula():
    reporter = Reporter()
    assert parse_formula("  a +\n b", 0, 8, "m", reporter) == Binary("+", a, b)
    assert formula("index + fix(output)") == Binary(
        "+", Name("index"), call(Name("fix"), Name("output"))
    )
    assert parse_formula(" # nothing", 0, 10, "m", reporter) is None
    assert not reporter.diagnostics
    assert parse_formula("a\nb", 0, 3, "m", reporter) is None
    assert [(d.code, str(d.span)) for d in reporter.diagnostics] == [("E201", "2:1")]


def test_terminals_do_not_collide():
    Lark(
        GRAMMAR.read_text(encoding="utf-8"),
        parser="lalr",
        lexer="basic",
        start=["statement", "expr"],
        maybe_placeholders=True,
        strict=True,
    )
