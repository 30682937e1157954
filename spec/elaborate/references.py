"""Which names a piece of syntax mentions freely: the basis for ordering and finding recurrences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import networkx as nx

from .. import syntax as s


def free_names(node: object, bound: frozenset[str] = frozenset()) -> set[str]:
    """Names used in ``node`` that it does not bind itself."""
    if isinstance(node, s.Name):
        return set() if node.id in bound else {node.id}
    if isinstance(node, s.Reduction):
        inner = bound | {name for name, _ in node.binders}
        found = free_names(node.body, inner)
        if node.condition is not None:
            found |= free_names(node.condition, inner)
        for _, domain in node.binders:
            if domain is not None:
                found |= free_names(domain, bound)
        return found
    if isinstance(node, s.Comprehension):
        return _with_clause([node.body], node.clause, bound)
    if isinstance(node, (s.Equation, s.Draw)):
        value = node.value if isinstance(node, s.Equation) else node.distribution
        return _with_clause([value], node.clause, bound | index_names(node.targets))
    if isinstance(node, s.Factor):
        return _with_clause([node.energy], node.clause, bound)
    if isinstance(node, s.Fn):
        return free_names(node.body, bound | set(node.params))
    if isinstance(node, s.Block):
        inner = bound | defined_names(node.body)
        return set().union(*(free_names(child, inner) for child in node.body), set())
    if isinstance(node, s.Definition):
        inner = bound | {p.name for p in node.params}
        found = free_names(node.body, inner)
        for parameter in node.params:
            if parameter.default is not None:
                found |= free_names(parameter.default, bound)
        return found
    return set().union(*(free_names(child, bound) for child in s.children(node)), set())


def _with_clause(
    parts: Sequence[object], clause: s.ForClause | None, bound: frozenset[str] | set[str]
) -> set[str]:
    found: set[str] = set()
    inner = frozenset(bound)
    if clause is not None:
        for binder in clause.binders:
            found |= free_names(binder.domain, inner)
            inner = inner | {name for item in binder.items for name in item}
        if clause.condition is not None:
            found |= free_names(clause.condition, inner)
    for part in parts:
        found |= free_names(part, inner)
    return found


def index_names(targets: Iterable[s.Target]) -> frozenset[str]:
    """Bare names in left-hand brackets: the indices that an equation ranges over."""
    found: set[str] = set()
    for target in targets:
        for item in target.items or ():
            found |= {name.id for name in _bare(item)}
    return frozenset(found)


def _bare(item: s.Expr) -> Iterator[s.Name]:
    if isinstance(item, s.Name):
        if not item.id[0].isupper():
            yield item
    elif isinstance(item, s.Tuple):
        for part in item.items:
            yield from _bare(part)
    elif isinstance(item, s.Group):
        yield from _bare(item.body)
    elif isinstance(item, s.Binary):
        yield from _bare(item.left)
        yield from _bare(item.right)


def defined_names(statements: Iterable[s.Statement]) -> set[str]:
    """Names that statements define in their scope."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement, (s.Equation, s.Draw)):
            found |= {target.name for target in statement.targets}
        elif isinstance(statement, (s.Definition, s.Const, s.State)):
            found.add(statement.name)
        elif isinstance(statement, (s.Input, s.Param, s.Index)):
            found |= set(statement.names)
        elif isinstance(statement, (s.Fix, s.Iterate)):
            found |= {n.rstrip("'") for n in defined_names(statement.body.body)}
    return found


def mentions_input(node: object) -> bool:
    """Whether ``_`` occurs, other than inside a nested ``fn`` or ``def``."""
    if isinstance(node, s.Name):
        return node.id == "_"
    if isinstance(node, (s.Fn, s.Definition)):
        return False
    return any(mentions_input(child) for child in s.children(node))


def recurrences(equations: dict[str, list[s.Equation]]) -> dict[str, tuple[str, ...]]:
    """For each name that depends on itself: all names of its cycle, in order of definition."""
    graph = nx.DiGraph()
    names = list(equations)
    for name, rows in equations.items():
        graph.add_node(name)
        for row in rows:
            for used in free_names(row):
                if used in equations:
                    graph.add_edge(name, used)
    cycles: dict[str, tuple[str, ...]] = {}
    for component in nx.strongly_connected_components(graph):
        first = next(iter(component))
        if len(component) > 1 or graph.has_edge(first, first):
            # What is defined together with a name of the cycle is computed with it.
            rows = [row for name in component for row in equations[name]]
            members = component | {target.name for row in rows for target in row.targets}
            group = tuple(name for name in names if name in members)
            cycles |= dict.fromkeys(group, group)
    return cycles
