"""Rules of contractions: transposes become letters, products with a matrix become ``linear``."""

from __future__ import annotations

from ..ir.graph import Value
from ..ops.contract import parse_spec
from ..rewrite import Apply, Match, Rule, Wild, op

# ---------------------------------------------------------------- transposes as letters


def _has_transposed_operand(m: Match) -> bool:
    rw = m.rewriter
    return any(rw.node(value.node).op == "transpose" for value in rw.operands(m.root))


def _read_in_place(m: Match) -> Value:
    rw = m.rewriter
    operands, attrs = rw.operands(m.root), rw.node(m.root).attrs
    inputs, output = parse_spec(str(attrs["spec"]), len(operands))
    sources, letters = [], []
    for value, part in zip(operands, inputs, strict=True):
        node = rw.node(value.node)
        if node.op == "transpose":
            perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
            part = "".join(part[perm.index(axis)] for axis in range(len(part)))
            value = rw.operands(value.node)[0]
        sources.append(value)
        letters.append(part)
    spec = ",".join(letters) + "->" + output
    return m.emit("contract", *sources, semiring=attrs["semiring"], spec=spec)


def _written_in_place(m: Match) -> Value:
    rw, inner = m.rewriter, m["y"]
    spec, _, output = str(m["spec"]).partition("->")
    moved = "".join(output[axis] for axis in m["perm"])
    attrs = {"semiring": m["semiring"], "spec": f"{spec}->{moved}"}
    return rw.emit("contract", rw.operands(inner.node), attrs, like=inner.node)


# ---------------------------------------------------------------- linear


def _linear_operands(m: Match, turned: bool = False) -> tuple[Value, Value] | None:
    """``(x, weight)`` when a contraction is ``x @ weight.T`` on the last axis of x.

    The weight has two axes, the first of which the result ends with; all else is the result's.
    ``turned`` asks for a weight with its axes the other way round: ``x @ weight``.
    """
    rw = m.rewriter
    operands = rw.operands(m.root)
    if m["semiring"] != "sum_product" or len(operands) != 2 or not m.type.is_float:
        return None
    (a, b), output = parse_spec(str(m["spec"]), 2)
    for x, weight, xs, ws in ((*operands, a, b), (*operands[::-1], b, a)):
        if len(ws) != 2 or not xs or len(set(xs)) != len(xs) or not rw.steady(weight):
            continue
        out, inner = ws[::-1] if turned else ws
        if out != inner and xs[-1] == inner and output == xs[:-1] + out:
            return x, weight
    return None


def _as_linear(m: Match) -> Value:
    found = _linear_operands(m)
    assert found is not None
    return m.emit("linear", *found)


def _as_turned_linear(m: Match) -> Value:
    found = _linear_operands(m, turned=True)
    assert found is not None
    x, weight = found
    return m.emit("linear", x, m.emit("transpose", weight, perm=(1, 0)))


def _is_matrix_product(m: Match) -> bool:
    weight = m.type_of("w")
    steady = m.rewriter.steady(m["w"])
    return steady and weight.rank == 2 and m.type_of("x").rank >= 1 and m.type.is_float


def _is_bias(m: Match) -> bool:
    """Whether the other summand is a known vector along the last axis."""
    rw, size = m.rewriter, m.type.shape[-1]
    shape = m.type_of("b").shape
    one = all(isinstance(d, int) and d == 1 for d in shape[:-1])
    rank = len(shape) <= m.type.rank
    return bool(shape) and shape[-1] == size and one and rank and rw.steady(m["b"])


def _with_bias(m: Match) -> Value:
    rw, inner = m.rewriter, m["y"]
    bias = m.emit("reshape", m["b"], shape=(m.type.shape[-1],))
    return rw.emit("linear", (m["x"], m["w"], bias), {}, like=inner.node)


_CONTRACT = Apply(("contract",), None, (("semiring", "semiring"), ("spec", "spec")))

CONTRACTIONS = (
    # sum_k A^T[k, i] B[k, j] = sum_k A[i, k] B[k, j] with the letters of A exchanged
    Rule("read in place", Apply(("contract",), None), _read_in_place, _has_transposed_operand),
    # (sum_k A[i, k] B[k, j])^T: the letters of the result exchanged
    Rule(
        "written in place",
        op(
            "transpose",
            Apply(
                ("contract",),
                None,
                (("semiring", "semiring"), ("spec", "spec")),
                alone=True,
                name="y",
            ),
            perm="perm",
        ),
        _written_in_place,
    ),
    # sum_k W[i, k] x[..., k] = linear(x, W)
    Rule("linear", _CONTRACT, _as_linear, lambda m: _linear_operands(m) is not None),
    # sum_k x[..., k] W[k, i] = linear(x, W^T)
    Rule(
        "linear, transposed",
        _CONTRACT,
        _as_turned_linear,
        lambda m: _linear_operands(m, turned=True) is not None,
    ),
    Rule(
        "matmul is linear",
        op("matmul", Wild("x"), Wild("w")),
        lambda m: m.emit("linear", m["x"], m.emit("transpose", m["w"], perm=(1, 0))),
        _is_matrix_product,
    ),
    # linear(x, W) + b = linear(x, W, b)
    Rule(
        "linear with bias",
        op("add", op("linear", Wild("x"), Wild("w"), alone=True, name="y"), Wild("b")),
        _with_bias,
        _is_bias,
    ),
)
