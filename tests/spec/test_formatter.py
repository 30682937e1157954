"""The formatter keeps trees and comments, is idempotent, and gives the page's look."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tilth.spec import syntax as s
from tilth.spec.diagnostics import Reporter, SpecError
from tilth.spec.formatter import format_formula, format_model, format_spec
from tilth.spec.layout import EXPRESSION_WORDS, lines
from tilth.spec.parser import lark, parse_formula, parse_model
from tilth.spec.render import render


def parse(text):
    reporter = Reporter({"m": text})
    statements = parse_model(text, 0, len(text), "m", reporter)
    reporter.raise_if_failed()
    return statements


# ---------------------------------------------------------------- random trees

NAMES = ["x", "y_1", "W", "x'", "_", "index", "output", "sum", "E", "max", "n"]
TARGETS = ["y", "z", "s'", "W_2"]
texts = st.text("abc{i+1}. #\"('é", max_size=6).map(lambda text: text.replace('"', ""))
numbers = st.one_of(
    st.integers(0, 10**6), st.floats(0, 1e30, allow_nan=False, allow_infinity=False)
).map(s.Number)
leaves = st.one_of(
    st.sampled_from(NAMES).map(s.Name), numbers, texts.map(s.String), st.booleans().map(s.Boolean)
)

ATOM, POWER, LABEL, UNARY, TERM, PRODUCT, PIPE, SUM, SIDE, RANGE, COMPARISON, NOT, AND, OR, ANY = (
    range(15)
)
BINARY = {  # operator: (how loose it binds, its left operand at most, its right operand at most)
    "^": (POWER, ATOM, ATOM),
    **dict.fromkeys("*/@%", (TERM, TERM, UNARY)),
    **dict.fromkeys(("+", "-", "++"), (SUM, SUM, PIPE)),
    "|": (SIDE, SIDE, SUM),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), (COMPARISON, RANGE, RANGE)),
    "and": (AND, AND, NOT),
    "or": (OR, OR, AND),
}


def is_reduction(node):
    inner = isinstance(node, s.Unary) and node.op == "-" and is_reduction(node.operand)
    return inner or isinstance(node, s.Reduction)


def looseness(node):
    match node:
        case s.Binary(op, _, right):
            return PRODUCT if is_reduction(right) and op in "*/@%" else BINARY[op][0]
        case s.Unary("-", _):
            return PRODUCT if is_reduction(node) else UNARY
        case s.Reduction():
            return PRODUCT
        case s.Label():
            return LABEL
        case s.Unary():
            return NOT
        case s.Pipe():
            return PIPE
        case s.Interval():
            return RANGE
        case s.Conditional():
            return ANY
    return ATOM


def fit(node, most):
    return node if looseness(node) <= most else s.Group(node)


def fit_unary(node):
    return node if is_reduction(node) else fit(node, UNARY)


def binary(op, left, right):
    _, most_left, most_right = BINARY[op]
    if op in "*/@%":
        return s.Binary(op, fit(left, most_left), fit_unary(right))
    if op == "^" and isinstance(right, s.Unary) and right.op == "-":
        return s.Binary(op, fit(left, ATOM), s.Unary("-", fit(right.operand, ATOM)))
    return s.Binary(op, fit(left, most_left), fit(right, most_right))


class Maker:
    """Draws trees of bounded depth; each method makes one kind of node."""

    def __init__(self, draw):
        self.draw = draw

    def few(self, make, least=1, most=3):
        return tuple(make() for _ in range(self.draw(st.integers(least, most))))

    def one_of(self, *makers):
        return self.draw(st.sampled_from(makers))()

    def maybe(self, make):
        return make() if self.draw(st.booleans()) else None

    def name(self):
        return self.draw(st.sampled_from(NAMES))

    def name_list(self, most=2):
        return self.few(self.name, 1, most)

    def text(self):
        return self.draw(texts)

    def expr(self, depth):
        if depth == 0 or self.draw(st.integers(0, 4)) == 0:
            return self.draw(leaves)
        return self.draw(st.sampled_from(EXPRESSIONS))(self, lambda: self.expr(depth - 1))

    def statement(self, depth):
        return self.draw(st.sampled_from(SIMPLE + NESTING))(self, lambda: self.expr(depth))

    def argument(self, sub):
        kind = self.draw(st.integers(0, 2))
        name = self.name() if kind == 1 else None
        return s.Argument(sub(), name, sub() if kind == 2 else None)

    def arguments(self, sub):
        return self.few(lambda: self.argument(sub), 0, 3)

    def items(self, sub):
        return self.few(lambda: self.one_of(sub, sub, s.WholeAxis), 1, 2)

    def clause(self, sub):
        binder = lambda: s.Binder(self.few(self.name_list, 1, 2), sub())  # noqa: E731
        return s.ForClause(self.few(binder, 1, 2), self.maybe(sub))

    def block(self, sub):
        statement = lambda: self.draw(st.sampled_from(SIMPLE))(self, sub)  # noqa: E731
        return s.Block(self.few(statement, 1, 2))

    def targets(self, sub):
        name = lambda: self.draw(st.sampled_from(TARGETS))  # noqa: E731
        return self.few(lambda: s.Target(name(), self.maybe(lambda: self.items(sub))), 1, 2)

    def type(self, sub):
        return s.TypeExpr(self.draw(st.sampled_from(["f32", "real"])), self.few(sub, 0, 2))

    def operator(self):
        return self.draw(st.sampled_from([*sorted(BINARY), *"*/+-"]))

    def reduction(self, sub):
        kind = self.draw(st.sampled_from(["sum", "max", "lse", "E"]))
        binders = self.few(lambda: (self.name(), self.maybe(sub)), 1, 2)
        return s.Reduction(kind, binders, self.maybe(sub), fit(sub(), PRODUCT))


EXPRESSIONS = [
    lambda m, sub: s.Call(fit(sub(), ATOM), m.arguments(sub)),
    lambda m, sub: s.Subscript(fit(sub(), ATOM), m.items(sub)),
    lambda m, sub: s.Member(fit(sub(), ATOM), m.name()),
    lambda m, sub: s.Unary("-", fit_unary(sub())),
    lambda m, sub: s.Unary("not", fit(sub(), NOT)),
    lambda m, sub: binary(m.operator(), sub(), sub()),
    lambda m, sub: binary(m.operator(), sub(), sub()),
    lambda m, sub: s.Pipe(m.few(lambda: fit(sub(), PRODUCT), 2, 5)),
    lambda m, sub: s.Interval(fit(sub(), SIDE), fit(sub(), SIDE)),
    lambda m, sub: s.Label(fit(sub(), POWER), m.name()),
    lambda m, sub: s.Label(fit(sub(), POWER), m.text(), True),
    lambda m, sub: s.Group(sub()),
    lambda m, sub: s.Tuple(m.few(sub)),
    lambda m, sub: s.List(m.few(sub, 0)),
    lambda m, sub: s.Comprehension(sub(), m.clause(sub)),
    lambda m, sub: s.Conditional(sub(), sub(), sub()),
    lambda m, sub: m.reduction(sub),
    lambda m, sub: s.Fn(m.name_list(), m.block(sub)),
]
SIMPLE = [
    lambda m, sub: s.Equation(m.targets(sub), sub(), m.maybe(lambda: m.clause(sub))),
    lambda m, sub: s.Draw(m.targets(sub), sub(), m.maybe(lambda: m.clause(sub))),
    lambda m, sub: s.Factor(sub(), m.maybe(lambda: m.clause(sub))),
    lambda m, sub: s.Input(m.name_list(), m.type(sub)),
    lambda m, sub: s.Param(m.name_list(), m.type(sub), m.maybe(sub)),
    lambda m, sub: s.Index(m.name_list(), sub()),
    lambda m, sub: s.Index(m.name_list(), s.NameSet(m.name_list(3))),
    lambda m, sub: s.Const(m.name(), sub()),
    lambda m, sub: s.State(m.name(), sub()),
    lambda m, sub: s.Output(m.few(lambda: s.Result(sub(), m.maybe(m.name)), 1, 2)),
]
NESTING = [
    lambda m, sub: s.Definition(
        m.name(),
        m.few(lambda: s.Parameter(m.name(), m.maybe(sub)), 0, 2),
        m.one_of(sub, lambda: m.block(sub)),
    ),
    lambda m, sub: s.Fix(m.arguments(sub), m.block(sub)),
    lambda m, sub: s.Iterate(m.arguments(sub), m.block(sub), sub()),
]


@st.composite
def expressions(draw, depth=3):
    return Maker(draw).expr(depth)


@st.composite
def statements(draw, depth=2):
    return Maker(draw).statement(depth)


quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@quick
@given(expressions())
def test_a_random_expression_comes_back(tree):
    text = render(tree)
    reporter = Reporter()
    assert parse_formula(text, 0, len(text), "m", reporter) == tree
    assert format_formula(text) == text


@quick
@given(statements())
def test_a_random_statement_comes_back(tree):
    text = render(tree)
    assert parse(text) == (tree,)
    assert format_model(text) == text


# ---------------------------------------------------------------- random comments and line breaks

INFIX = {
    ">>", "+", "-", "++", "*", "/", "@", "%", "^", "|", "..", "==", "!=", "<", "<=", ">", ">=",
    "and", "or", "as", "in",
}  # fmt: skip
BREAKS = [
    "\n", "\n\n\n", "  # a\n", " # b (\n\n", "\n  # c {\n", '\n#d\n\n   # e = "\n', "\t\n  ",
    "\n ", "\n   ", "\n       ", "\n     # f\n     ", "\n \t  ", " " * 2, " " * 3, " \t ",
]  # fmt: skip


def gaps(text):
    """Offsets between tokens where the text may be broken, and those where a statement starts."""
    inside, between = [], [0]
    for line in lines(lark(), text, 0, len(text), "m", Reporter()):
        opened = []
        for i, token in enumerate(line.tokens):
            if i and token.type != "_NL" and line.tokens[i - 1].type != "_NL":
                before = line.tokens[i - 1]
                free = bool(opened) and opened[-1]
                joined = before.value in INFIX or token.value in INFIX
                # `sum` and `{` must touch, and so must nothing else.
                if (free or joined) and before.type != "REDUCER":
                    inside.append(token.start_pos)
                if before.type == "LBRACE" and not free:
                    between.append(token.start_pos)
            if token.type in ("LPAR", "LSQB"):
                opened.append(True)
            elif token.type == "LBRACE":
                opened.append(line.tokens[i - 1].type in ("REDUCER", "COLON"))
            elif token.type in ("RPAR", "RSQB", "RBRACE"):
                opened.pop()
        between.append(line.tokens[-1].end_pos)
    return inside, between


@quick
@given(st.lists(statements(), min_size=1, max_size=3), st.data())
def test_comments_and_breaks_are_kept(trees, data):
    plain = "".join(map(render, trees))
    inside, between = gaps(plain)
    chosen = data.draw(st.sets(st.sampled_from(inside + between), max_size=6))
    messy = plain
    for offset in sorted(chosen, reverse=True):
        messy = messy[:offset] + data.draw(st.sampled_from(BREAKS)) + messy[offset:]
    assert parse(messy) == tuple(trees)
    styled = format_model(messy)
    assert parse(styled) == tuple(trees)
    assert sorted(comments(styled)) == sorted(comments(messy))
    assert format_model(styled) == styled
    assert not re.search(r"[ \t]\n|\n\n\n|\A\n|\n\n\Z", styled)
    check_runs(styled)


@quick
@given(st.lists(statements(1), min_size=2, max_size=4), st.data())
def test_spaces_line_tokens_up_or_vanish(trees, data):
    lines = "".join(map(render, trees)).splitlines()
    for _ in range(data.draw(st.integers(1, 5))):
        row = data.draw(st.integers(0, len(lines) - 2))
        above, below = (data.draw(st.sampled_from(movable(lines[k]))) for k in (row, row + 1))
        wanted = max(above.start(), below.start()) + data.draw(st.integers(0, 1))
        for k, word in ((row, above), (row + 1, below)):
            start = word.start()
            lines[k] = lines[k][:start] + " " * (wanted - start) + lines[k][start:]
    messy = "\n".join(lines)
    styled = format_model(messy)
    assert parse(styled) == tuple(trees)
    assert format_model(styled) == styled
    check_runs(styled)


def movable(line):
    """The tokens of a line without the braces that must touch the reducer before them."""
    return [word for word in words(line) if not re.search(r"\w\{", line[: word.end()][-2:])]


WORD = r'"[^"]*"|\d+(?:\.\d+)?(?:e[+-]?\d+)?|[\w\']+|\.\.|>>|\+\+|[<>=!]=|[^\s\w]'


def words(line):
    """The tokens of a line."""
    return list(re.finditer(WORD, line))


def check_runs(styled):
    """Two spaces or more stand only before a token that another row has in the same column."""
    rows = [words(re.sub(r'("[^"]*")|#.*', r"\1", line)) for line in styled.splitlines()]
    for k, row in enumerate(rows):
        others = [word for other in rows[:k] + rows[k + 1 :] for word in other]
        edges = {word.start() for word in others}, {word.end() for word in others}
        for before, word in itertools.pairwise(row):
            if word.start() - before.end() >= 2:
                assert word.start() in edges[0] or word.end() in edges[1]


def comments(text):
    found = re.findall(r'"[^"\n]*"|(#[^\n]*)', text)
    return [comment.rstrip() for comment in found if comment]


# ---------------------------------------------------------------- the look

SAME = [
    "y = x >> conv(4*w, 3, stride=2) as conv1 >> bn\n",
    "y = a * b + 2 * c\n",
    "y = f(2*c, c/2, r*c, n - 1, -1, 2^l, 4 * 2^l, 3 * f(x), 2 * a * b)\n",
    "h[t] = x[t-1, 2*t + 1, :, (h, d)] - h[T-1]\n",
    "x[k+1] = x[k]\n",
    "param W : real[4*H, K+1, heads, dim/heads]\n",
    "y[i] = sum{k in 0..n+1 if ok[k]} -A[i, k]^2 for i, j in 1..T-1, (t, c) in rows if i < j\n",
    "loss = -mean(log(1 - sigmoid(x))) - -y\n",
    "s' ~ choice(0.8: move(s, a), 0.1: s)\n",
    "index a : {up, down}\n",
    "policy = if not a and b or c == d then (x,) else []\n",
    "f = fn(a, b) { output a @ b % 4 | c ++ d }\n",
    "fix(steps=3) { x = f(x) }\n",
    "def f = conv(_)\n",
    "def f(a, b=1) {\n  y = a\n\n  # why\n  output y\n}\n",
    "iterate {\n  x' = f(x)\n} until x' - x < 1e-7\n",
    "y = v.name(3)[0](x)^(n - 1) >> v\n",
    "y = x\n    >> conv(64, 3) >> relu\n    >> gap\n",
    "y = (a\n    + b\n) >> relu\n",
    "y = f(\n    a,\n    b,\n)\n",
    "y = f(g(\n    a\n))\n",
    "y[t] ~ normal(0, 1)\n    for t in 0..T\n",
    "y =\n    a\n    + b\n",
    "a = 1  # one\nbcd = 2  # two\n",
    "# head\n\ny = 1\n# tail\n",
    "",
    "y = x != 4*c and 2 * c / d > 1\n",
    "y = f(3, 2*x[i], x[i] / 2, x[i] * y[j], c * d + 1, (c * d), k=c*d)\n",
    "index i : 0..H*W\n",
    "y = -logp(z = label) + g(z=label)\n",
    # indentation of continuation rows
    "y = f(a,\n      b)\n",
    "y =\n     a >> b\n  >> c\n",
    "y = chain([\n     a\n  >> b\n  for k in 0..5])\n",
    "def k(i) = a * b\n         + c\n         # why\n         + d\n",
    "fix {\n  x = y\n    + z\n}\n",
    "y = g >> (fn(a) {\n  c = a\n      + 1\n  output c\n})\n     >> h\n",
    # brackets with a space inside
    "y =\n    ( a >> b\n   >> c\n    + d\n    ) >> relu\n",
    "y = a\n  + ( b\n   >> c )\n",
    "y = ( ( (a >> b) as c\n     ++ d\n      ) >> e\n   >> f\n    )\n",
    # columns
    "V[s]    = a\nQ[s, a] = b\n",
    "x ~ f(a)         for t in 1..T\ny ~ g(a, b, c)   for t in 0..T\n",
    "input y  : f32[T, D]\nparam pi : simplex[K]\n",
    "y ~ f(a)       for t in 1..T\nfactor y\nfactor f(a, t) for t in 0..T\n",
    "y = x\n    >> stage(64,  depths[0], 1)\n    >> stage(128, depths[1], 2)\n",
    "y = x\n    # 1x1  3x3\n    >> f( 64,   9)\n    >> p\n    >> f(128,  17)\n",
    "m = [[ 1, -1],\n     [-1,  1]]\n",
]


@pytest.mark.parametrize("text", SAME, ids=repr)
def test_style_is_a_fixed_point(text):
    if "# one" in text:
        text = "a = 1    # one\nbcd = 2  # two\n"
    assert format_model(text) == text


@pytest.mark.parametrize(
    "text, styled",
    [
        ("y=a>>b", "y = a >> b\n"),
        ("y = f ^ n ++ g", "y = f^n ++ g\n"),
        ("y = f( a ,b , k = 3 )", "y = f(a, b, k=3)\n"),
        ("y = x[ t - 1 , 2 * w ]", "y = x[t-1, 2*w]\n"),
        ("index i: 0 .. n+1", "index i : 0..n+1\n"),
        ("y = - a*b", "y = -a * b\n"),
        ("z[n]   ~ categorical(w)    for n in 0..N", "z[n] ~ categorical(w) for n in 0..N\n"),
        ("y = a >>\n b >>\n c", "y = a\n    >> b\n    >> c\n"),
        ("y = x[2 *\n k]", "y = x[2\n    *k]\n"),
        ("y = f(a\n, b)", "y = f(a,\n    b)\n"),
        ("y = a +  # why\n b", "y = a  # why\n    + b\n"),
        ("y = a + # 1\n # 2\n b # 3\n", "y = a  # 1\n    # 2\n    + b  # 3\n"),
        ("y = f( # 1\n a)\n", "y = f(  # 1\n    a)\n"),
        ("fix { # 1\n x = y # 2\n # 3\n }", "fix {    # 1\n  x = y  # 2\n  # 3\n}\n"),
        ("fix {\n x = y }", "fix {\n  x = y\n}\n"),
        ("\n\n\n# a\n\n\n\ny = 1\n\n\n", "# a\n\ny = 1\n"),
        ("a = 1 # x\nbcd = 2 # y\n\ne = 3 # z", "a = 1    # x\nbcd = 2  # y\n\ne = 3  # z\n"),
        ("a = 1\r\nb = 2 # x\r\n", "a = 1\nb = 2  # x\n"),
        ("def f(a)={\n\ty = a\n\toutput y }", "def f(a) = {\n  y = a\n  output y\n}\n"),
        ("y = g >> (fn(a, b) {\n c = a\n output c }) >> h",
         "y = g >> (fn(a, b) {\n  c = a\n  output c\n}) >> h\n"),
        # indentation: of a statement, too little, of a comment, behind a moved operator
        ("def f {\n      y = a\n           + b\n    }", "def f {\n  y = a\n       + b\n}\n"),
        ("y =\n   (a\n + b\n   ) >> c", "y =\n    (a\n  + b\n    ) >> c\n"),
        ("y = (a\n+ b\n      + c)", "y = (a\n    + b\n      + c)\n"),
        ("y = a\n # 1\n   # 2\n   + b", "y = a\n    # 1\n   # 2\n   + b\n"),
        ("y = a +\n      b", "y = a\n      + b\n"),
        ("y = a\n\t   + b", "y = a\n    + b\n"),
        # brackets: of calls, on one row, without a partner
        ("y = f( a,\n   b )", "y = f(a,\n   b)\n"),
        ("y = ( a >> b )", "y = (a >> b)\n"),
        ("y = (a\n  + b ) >> c", "y = (a\n  + b) >> c\n"),
        ("y = (   a\n  + b )", "y = ( a\n  + b )\n"),
        # columns: next to nothing, missed, in another bracket, over a blank line, drifting
        ("a   = 1\nbc = 2", "a = 1\nbc = 2\n"),
        ("y = f(a,  b)\nz = ghi + b", "y = f(a, b)\nz = ghi + b\n"),
        ("a   = 1\n\nbcd = 2", "a = 1\n\nbcd = 2\n"),
        ("x ~ f(a,b)     for t in T\ny ~ g(a, b, c) for t in T",
         "x ~ f(a, b)    for t in T\ny ~ g(a, b, c) for t in T\n"),
        ("a\t  = 1\nbcd = 2", "a = 1\nbcd = 2\n"),
    ],
    ids=repr,
)  # fmt: skip
def test_style(text, styled):
    assert format_model(text) == styled
    assert format_model(styled) == styled


ZOO = Path(__file__).parents[2] / "zoo_specs"
PAGE = ["blocks_resnet", "chance_hidden_markov", "chance_dense_crf", "decide_gridworld"]


@pytest.mark.parametrize("path", sorted(ZOO.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_spec_of_the_zoo_is_in_the_style(path):
    text = path.read_text(encoding="utf-8")
    assert format_spec(text, path.name) == text


@pytest.mark.parametrize("name", PAGE)
def test_long_examples_of_the_page_are_in_the_style(name):
    text = (Path(__file__).parent / "corpus" / f"{name}.tilth").read_text(encoding="utf-8")
    assert format_model(text) == text


def test_a_long_chain_is_broken_before_each_element():
    elements = [f"conv({i}{'0' * 12}, 3)" for i in range(6)]
    assert format_model("y = x >> " + " >> ".join(elements)) == (
        "y = x\n" + "".join(f"    >> {element}\n" for element in elements)
    )


def test_only_the_outermost_chain_of_a_long_row_is_broken():
    inner = "(" + " >> ".join(["conv(64, 3)"] * 4) + ")"
    assert (
        format_model(f"y = x >> {inner} >> {inner}") == f"y = x\n    >> {inner}\n    >> {inner}\n"
    )


def test_the_authors_grouping_of_a_chain_is_kept():
    row = ">> conv(640000000000, 3) >> batch_normalisation >> rectified_linear_unit"
    text = f"y = x\n    {row}\n    {row} >> dropout(0.1234567890)\n    {row}\n"
    assert max(map(len, text.splitlines())) > 100
    broken = "".join(
        f"    {e}\n" for e in re.findall(r">> \S+(?: 3\))?", f"{row} >> dropout(0.1234567890)")
    )
    assert format_model(text) == f"y = x\n    {row}\n{broken}    {row}\n"


def test_a_long_block_is_opened():
    body = "x = " + " + ".join(["variable"] * 9)
    assert format_model(f"fix {{ {body} }}") == f"fix {{\n  {body}\n}}\n"


def test_names_that_look_like_reducers_stay_apart_from_braces():
    text = "def sum {\n  y = _\n  output y\n}\n"
    assert format_model(text) == text


def test_faulty_text_is_refused():
    with pytest.raises(SpecError, match=r"model:1:7: error\[E201\]"):
        format_model("y = a b")
    with pytest.raises(SpecError, match=r"formula:1:4: error\[E205\]"):
        format_formula("a +")


# ---------------------------------------------------------------- whole files

SPEC = """\
tilth: 1
name: tiny\x20\x20\x20
options: {c:   3}   # spaces stay
model: |  # a comment

    input x:f32[N,3]
      # why
    y=x>>conv( 3,1 )   # last

    output y


train:
  objective: |
      loss=mean( y )
  objectives:
    - loss: |-
       loss = mean(2*y)+1
      over: D
  note: "a  b"
notes: |
  a  =  b
"""

STYLED = """\
tilth: 1
name: tiny
options: {c:   3}   # spaces stay
model: |  # a comment

  input x : f32[N, 3]
  # why
  y = x >> conv(3, 1)  # last

  output y


train:
  objective: |
    loss = mean(y)
  objectives:
    - loss: |-
        loss = mean(2*y) + 1
      over: D
  note: "a  b"
notes: |
  a  =  b
"""


def test_a_spec_file():
    assert format_spec(SPEC, "s.yaml") == STYLED
    assert format_spec(STYLED, "s.yaml") == STYLED


def test_a_spec_file_with_windows_line_ends():
    assert format_spec(SPEC.replace("\n", "\r\n"), "s.yaml") == STYLED.replace("\n", "\r\n")


@pytest.mark.parametrize(
    "text, styled",
    [
        ("model: |4\n    y=1\n", "model: |4\n    y = 1\n"),
        ("model: |-\n y=1", "model: |-\n  y = 1"),
        ("model: |\n\n", "model: |\n\n"),
        ("model: |\n  y=1\n# after\nname: a", "model: |\n  y = 1\n# after\nname: a"),
        ("name: a", "name: a"),
        ("", ""),
    ],
    ids=repr,
)
def test_edges_of_blocks(text, styled):
    assert format_spec(text, "s.yaml") == styled


def test_a_fault_is_shown_at_its_place_in_the_file():
    with pytest.raises(SpecError, match=r"s\.yaml:3:9: error\[E201\]: unexpected `b`"):
        format_spec("tilth: 1\nmodel: |\n  y = a b\n", "s.yaml")
    with pytest.raises(SpecError, match=r"s\.yaml:2:1: error\[E003\]"):
        format_spec("a: 1\na: 2\n", "s.yaml")


def test_no_keyword_is_a_name_of_the_generator():
    assert not set(NAMES) & set(EXPRESSION_WORDS)
