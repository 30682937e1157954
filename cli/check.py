"""``tilth check``: every fault of a spec, and a line for each fact that was proven."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from ..program import Program, Report, SpecError, find_spec, load, render_all
from .console import columns, complain, say, say_json
from .options import add_model_options, load_chosen


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", nargs="+", help="a file, or a name from the zoo")
    parser.add_argument("--all", action="store_true", help="check every variant")
    parser.add_argument("--json", action="store_true", help="print an object (a list for several)")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Check each spec; 1 when any has an error."""
    results = [result for spec in args.spec for result in _check(spec, args)]
    if args.json:
        say_json(results[0] if len(results) == 1 else results)
    found = [d for result in results for d in result["diagnostics"]]
    return 1 if any(d["severity"] == "error" for d in found) else 0


def _check(spec: str, args: Namespace) -> list[dict[str, Any]]:
    """The results of one spec, printed as they come unless they are wanted as JSON."""
    try:
        programs = _programs(spec, args)
    except SpecError as error:
        if not args.json:
            complain(str(error))
            say(f"{spec}\n  failed: {_count(len(error.diagnostics), 'fault')}")
        return [_failed(spec, args.variant, error)]
    reports = [(program, program.check()) for program in programs]
    if not args.json:
        for program, report in reports:
            _show(program, report)
    return [report.as_json() for _, report in reports]


def _programs(spec: str, args: Namespace) -> list[Program]:
    first = load_chosen(spec, args)
    if not args.all:
        return [first]
    path, _ = find_spec(spec)
    others = [variant for variant in first.variants if variant != first.variant]
    sizes = dict(args.shape)
    return [first, *(load(path, set=args.set, sizes=sizes, variant=name) for name in others)]


def _failed(spec: str, variant: str | None, error: SpecError) -> dict[str, Any]:
    """The same keys as a report's, with nothing known."""
    unknown = dict.fromkeys(("parameters", "buffers", "macs"))
    faults = [d.as_json() for d in error.diagnostics]
    empty = {"outputs": {}, "expectations": [], "diagnostics": faults}
    return {"name": spec, "variant": variant, **unknown, **empty}


def _show(program: Program, report: Report) -> None:
    if report.diagnostics:
        complain(render_all(report.diagnostics, program.sources))
    verdicts = {
        proof.name: "proven" if proof.proven else f"not met: expected {proof.expected}"
        for proof in report.proofs
    }
    values = {"parameters": _number(report.parameters), "macs": _number(report.macs)}
    for name, shape in report.outputs.items():
        values[f"outputs.{name}"] = f"[{', '.join(map(str, shape))}]"
    values |= {proof.name: proof.found for proof in report.proofs}
    rows = [(name, value, verdicts.get(name, "")) for name, value in values.items()]
    head = report.variant or report.name
    say(head if head == report.name else f"{head} ({report.name})")
    for line in columns(rows):
        say(line)
    say(f"  {_verdict(program, report)}")


def _verdict(program: Program, report: Report) -> str:
    proven = sum(proof.proven for proof in report.proofs)
    facts = f"{_count(proven, 'fact')} proven"
    if program.overridden:
        facts = "options are overridden, so its facts were not checked"
    elif not report.proofs:
        facts = "it states no facts to prove"
    faults = sum(d.severity == "error" for d in report.diagnostics)
    return f"ok: {facts}" if report.ok else f"failed: {_count(faults, 'fault')}; {facts}"


def _number(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
