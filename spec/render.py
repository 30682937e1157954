"""From a syntax tree back to text."""

from __future__ import annotations

from . import syntax as s
from .formatter import format_formula, format_model


def render(node: s.Statement | s.Expr) -> str:
    """The text of a statement or an expression in the formatter's style.

    A tree that no text parses to (an unbracketed sum as an operand of ``*``) gives other text or
    a ``SpecError``; trees from the parser keep their brackets and are safe.
    """
    if isinstance(node, s.STATEMENTS):
        return format_model(_statement(node))
    return format_formula(_expr(node))


def _statement(node: s.Statement) -> str:
    match node:
        case s.Equation(targets, value, clause):
            return f"{_targets(targets)} = {_expr(value)}{_for(clause)}"
        case s.Draw(targets, distribution, clause):
            return f"{_targets(targets)} ~ {_expr(distribution)}{_for(clause)}"
        case s.Definition(name, params, body):
            listed = ", ".join(p.name + _default(p.default) for p in params)
            head = f"def {name}({listed})" if params else f"def {name}"
            if isinstance(body, s.Block):
                return f"{head} {_block(body)}"
            return f"{head} = {_expr(body)}"
        case s.Factor(energy, clause):
            return f"factor {_expr(energy)}{_for(clause)}"
        case s.Fix(args, body):
            return f"fix{_settings(args)} {_block(body)}"
        case s.Iterate(args, body, until):
            return f"iterate{_settings(args)} {_block(body)} until {_expr(until)}"
        case s.Output(results):
            return "output " + ", ".join(map(_result, results))
        case s.Const(name, value):
            return f"const {name} = {_expr(value)}"
        case s.State(name, value):
            return f"state {name} = {_expr(value)}"
    return _declaration(node)


def _declaration(node: s.Input | s.Param | s.Index) -> str:
    names = ", ".join(node.names)
    match node:
        case s.Input(_, type):
            return f"input {names} : {_type(type)}"
        case s.Param(_, type, init):
            return f"param {names} : {_type(type)}{_default(init)}"
        case s.Index(_, domain):
            if isinstance(domain, s.NameSet):
                return f"index {names} : {{{', '.join(domain.names)}}}"
            return f"index {names} : {_expr(domain)}"


def _targets(targets: tuple[s.Target, ...]) -> str:
    return ", ".join(t.name + ("" if t.items is None else f"[{_list(t.items)}]") for t in targets)


def _for(clause: s.ForClause | None) -> str:
    if clause is None:
        return ""
    binders = ", ".join(map(_binder, clause.binders))
    return f" for {binders}{_if(clause.condition)}"


def _binder(binder: s.Binder) -> str:
    items = [names[0] if len(names) == 1 else f"({', '.join(names)})" for names in binder.items]
    return f"{', '.join(items)} in {_expr(binder.domain)}"


def _if(condition: s.Expr | None) -> str:
    return "" if condition is None else f" if {_expr(condition)}"


def _default(value: s.Expr | None) -> str:
    return "" if value is None else f" = {_expr(value)}"


def _settings(args: tuple[s.Argument, ...]) -> str:
    return f"({', '.join(map(_argument, args))})" if args else ""


def _argument(arg: s.Argument) -> str:
    if arg.weight is not None:
        return f"{_expr(arg.weight)}: {_expr(arg.value)}"
    return (f"{arg.name}=" if arg.name else "") + _expr(arg.value)


def _result(result: s.Result) -> str:
    return (f"{result.name} = " if result.name else "") + _expr(result.value)


def _type(type: s.TypeExpr) -> str:
    return type.name + (f"[{_list(type.dims)}]" if type.dims else "")


def _block(block: s.Block) -> str:
    return "{ " + "\n".join(map(_statement, block.body)) + " }"


def _list(items: tuple[s.Expr, ...]) -> str:
    return ", ".join(map(_expr, items))


def _expr(node: s.Expr) -> str:
    match node:
        case s.Number(value, text):
            return text or repr(value)
        case s.String(value):
            return f'"{value}"'
        case s.Boolean(value):
            return "true" if value else "false"
        case s.Name(id):
            return id
        case s.Call(function, args):
            return f"{_expr(function)}({', '.join(map(_argument, args))})"
        case s.Subscript(base, items):
            return f"{_expr(base)}[{_list(items)}]"
        case s.WholeAxis():
            return ":"
        case s.Member(base, name):
            return f"{_expr(base)}.{name}"
        case s.Unary(op, operand):
            return f"{op} {_expr(operand)}"
        case s.Binary(op, left, right):
            return f"{_expr(left)} {op} {_expr(right)}"
        case s.Pipe(parts):
            return " >> ".join(map(_expr, parts))
        case s.Interval(low, high):
            return f"{_expr(low)} .. {_expr(high)}"
        case s.Label(body, name, quoted):
            return f"{_expr(body)} as " + (f'"{name}"' if quoted else name)
    return _bracketed(node)


def _bracketed(node: s.Expr) -> str:
    match node:
        case s.Group(body):
            return f"({_expr(body)})"
        case s.Tuple((only,)):
            return f"({_expr(only)},)"
        case s.Tuple(items):
            return f"({_list(items)})"
        case s.List(items):
            return f"[{_list(items)}]"
        case s.Comprehension(body, clause):
            return f"[{_expr(body)}{_for(clause)}]"
        case s.Conditional(condition, yes, no):
            return f"if {_expr(condition)} then {_expr(yes)} else {_expr(no)}"
        case s.Reduction(kind, binders, condition, body):
            names = ", ".join(n + ("" if d is None else f" in {_expr(d)}") for n, d in binders)
            return f"{kind}{{{names}{_if(condition)}}} {_expr(body)}"
        case s.Fn(params, body):
            return f"fn({', '.join(params)}) {_block(body)}"
    raise TypeError(f"not an expression: {type(node).__name__}")
