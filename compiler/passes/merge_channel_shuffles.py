"""Merge channel shuffles: a permutation of channels travels until weights or a map take it in.

Before::

    %1 = conv(%0, %W1) {groups=1}
    %2 = channel_shuffle(%1) {groups=2, axis=1}
    %3 = batch_norm(%2, %m, %v, %g, %b)
    %4 = relu(%3)
    %5 = conv(%4, %W2) {groups=1}

After::

    %1 = conv(%0, %W1) {groups=1}
    %3 = batch_norm(%1, take(%m), take(%v), take(%g), take(%b))    # before any call
    %4 = relu(%3)
    %5 = conv(%4, take(%W2) {axis=1}) {groups=1}                   # before any call

Each value is kept as a physical value and an order. The order passes through ops that work channel
by channel, joins at ``concat``, is parted at ``split``, and ends in the weights of a dense
convolution, or of a grouped one when groups stay whole. What no weights can take, going forward or
back, stays as a ``take`` along axis 1 at constant indices named ``channel_map``: a matter of where
channels lie, for the layout to settle. Zhang et al., ShuffleNet, CVPR 2018; Ma et al., ECCV 2018.
"""

from __future__ import annotations

from ..ir.graph import Value
from ..ir.types import TensorType
from ..options import Options
from ..rewrite import Match, Rewriter, Rule, Wild, op, rewrite, within_loops
from .channel_orders import (
    RULES,
    Order,
    Placed,
    compose,
    identity,
    inverse,
    pass_through,
    pass_with_vectors,
    rule_for,
    take,
)


def merge_channel_shuffles(rewriter: Rewriter, options: Options) -> None:
    """Leave no ``channel_shuffle`` along axis 1 of a known number of channels."""
    within_loops(rewriter, lambda inner: merge_channel_shuffles(inner, options))
    rewrite(rewriter, [SPELLED_OUT])
    if rewriter.of_op("channel_shuffle"):
        _Travel(rewriter).run()


# ---------------------------------------------------------------- recognising


def _is_spelled_shuffle(m: Match) -> bool:
    before, inner, after = m.type_of("x").shape, m["parts"], m.type.shape
    rest = tuple(range(3, len(inner)))
    return (
        len(before) >= 2
        and before == after
        and inner[0] == before[0]
        and inner[3:] == before[2:]
        and m["perm"] == (0, 2, 1, *rest)
        and isinstance(before[1], int)
        and isinstance(inner[1], int)
    )


SPELLED_OUT = Rule(
    # [N, g, c, ...] -> [N, c, g, ...], laid out as channels again
    "shuffle spelled out",
    op(
        "reshape",
        op("transpose", op("reshape", Wild("x"), shape="parts"), perm="perm"),
    ),
    lambda m: m.emit("channel_shuffle", m["x"], groups=m["parts"][1], axis=1),
    _is_spelled_shuffle,
)


# ---------------------------------------------------------------- travelling


class _Travel:
    """One walk from inputs to outputs with the orders of all values met so far."""

    def __init__(self, rewriter: Rewriter) -> None:
        self.rewriter = rewriter
        self._placed: dict[Value, Placed] = {}
        self._aliases: dict[Value, list[Value]] = {}
        self._in_order: dict[Value, Value] = {}
        self._done: set[int] = set()

    def run(self) -> None:
        rw = self.rewriter
        for index in rw.all():
            if self._starts_here(index) or any(map(self.is_moved, rw.operands(index))):
                self._visit(index)
        moved = [v for v in dict.fromkeys(v for _, v in rw.graph.outputs) if self.is_moved(v)]
        # All are made before any replaces what others may be made of.
        for value, ready in [(value, self._materialised(value)) for value in moved]:
            rw.replace(value, ready)
        for index in reversed(rw.all()):
            if index in rw.graph:
                rw.sweep(index)

    def placed(self, value: Value) -> Placed:
        """The physical value behind a logical one, and its order."""
        if value in self._placed:
            return self._placed[value]
        size = self.rewriter.type_of(value).shape[1]
        assert isinstance(size, int)
        return value, identity(size)

    def is_moved(self, value: Value) -> bool:
        """Whether a value's channels lie in another order."""
        return value in self._placed

    def in_order(self, value: Value, order: Order, reader: int) -> Value | None:
        """The value with its channels in ``order``, or ``None`` when that costs a copy."""
        rw = self.rewriter
        found, own = self.placed(value)
        if own == order:
            return found
        index = compose(own, inverse(order))
        small = rw.type_of(value).shape.count(1) > rw.node(reader).type.shape.count(1)
        if self._is_absorbing(value, found):
            return self._absorbed(found, index)
        if rw.steady(value) or small:
            return take(rw, found, index, 1, "channel_map")
        return None

    # ------------------------------------------------------------ one node

    def _starts_here(self, index: int) -> bool:
        node = self.rewriter.node(index)
        if node.op != "channel_shuffle" or node.attrs["axis"] != 1:
            return False
        return isinstance(node.type.shape[1], int)

    def _visit(self, index: int) -> None:
        rw = self.rewriter
        operands = rw.operands(index)
        rule = rule_for(rw, index)
        results = rule(self, index) if rule is not None and self._is_known(index) else None
        if results is None:
            ready = [self._materialised(v) if self.is_moved(v) else v for v in operands]
            rw.set_operands(index, ready)
            return
        self._done.add(index)
        for place, (value, order) in enumerate(results):
            old = Value(index, place)
            if index not in rw.graph:  # nothing reads the results that are left
                return
            if order == identity(len(order)):
                rw.replace(old, value)
            else:
                self._placed[old] = (value, order)
                self._aliases.setdefault(value, []).append(old)
                rw.became[index] = value.node

    def _is_known(self, index: int) -> bool:
        """Whether every operand that a rule may ask about has a known number of channels."""
        rw = self.rewriter
        kinds: list[TensorType] = [rw.type_of(v) for v in rw.operands(index)]
        return all(kind.rank < 2 or isinstance(kind.shape[1], int) for kind in kinds)

    def _materialised(self, value: Value) -> Value:
        """The value with its channels put right, made once."""
        if value not in self._in_order:
            found, order = self._placed[value]
            if self._is_absorbing(value, found):
                self._in_order[value] = self._absorbed(found, order)
            else:
                self._in_order[value] = take(self.rewriter, found, order, 1, "channel_map")
        return self._in_order[value]

    # ------------------------------------------------------------ going back

    def _is_absorbing(self, value: Value, found: Value) -> bool:
        """Whether all that reads the value is one reader, and weights before it can take an order.

        The value lies at ``found``.
        """
        return self._pending(found) == 1 and self._ends_in_weights(found)

    def _ends_in_weights(self, value: Value) -> bool:
        rw = self.rewriter
        while True:
            node, operands = rw.node(value.node), rw.operands(value.node)
            if node.op == "conv" and node.attrs["groups"] == 1:
                return True
            if node.op == "linear" and node.type.rank == 2:
                return True
            if not self._passes(value.node) or self._pending(operands[0]) != 1:
                return False
            value = operands[0]

    def _passes(self, index: int) -> bool:
        """Whether a node works channel by channel on its first operand."""
        rw = self.rewriter
        rule, node = rule_for(rw, index), rw.node(index)
        if len(node.types) != 1 or node.op == "linear" or node.type.rank < 2:
            return False
        single = node.op not in RULES and rule is not None and len(rw.operands(index)) == 1
        return single or rule in (pass_through, pass_with_vectors)

    def _pending(self, value: Value) -> int:
        """How many readers a physical value has or will have."""
        rw = self.rewriter
        known = [value, *self._aliases.get(value, ())]
        names = [name for name in known if name.node in rw.graph]
        readers = sum(1 for name in names for user, _ in rw.readers(name) if user not in self._done)
        return readers + sum(1 for _, put_out in rw.graph.outputs if put_out in names)

    def _absorbed(self, value: Value, index: Order) -> Value:
        """The value's channels at ``index``, by way of the weights that make it."""
        rw = self.rewriter
        node, (x, *rest) = rw.node(value.node), rw.operands(value.node)
        if node.op not in ("conv", "linear"):
            x = self._absorbed(x, index)
        moved = [take(rw, vector, index, 0, "") for vector in rest]
        return rw.emit(node.op, (x, *moved), node.attrs, like=value.node)
