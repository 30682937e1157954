"""``tilth bench``: models against other engines, checked and then timed side by side."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bench.compare import Row
from ..bench.engines import ENGINES, OWN
from ..bench.kind import Kind, Measured, Request
from ..bench.kinds import KINDS, NETS, PEERS, kind_of
from ..bench.profiles import total
from ..bench.results import save_results
from ..bench.runner import Spread
from ..bench.table import write_table
from ..program import located_faults, machine
from .console import Failure, note, reason, say, say_json, say_table
from .options import add_model_options, positive

ASKED = ("batch", "engine", "profile", "seconds", "train")
"""Options that not every kind of model has."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", nargs="+", help="a file, or a name from the zoo")
    parser.add_argument(
        "--against",
        metavar="ENGINES",
        type=_engines,
        help="with commas, or none; all installed ones by default. "
        + "; ".join(f"{kind.what}: {', '.join(kind.peers)}" for kind in reversed(KINDS)),
    )
    parser.add_argument("--engine", choices=OWN, help=f"which of ours, {OWN[0]} by default")
    parser.add_argument(
        "--train", action="store_const", const=True,
        help="measure steps of training: gradients and update too",
    )  # fmt: skip
    parser.add_argument("--batch", metavar="N,...", type=_numbers, help="1 by default")
    parser.add_argument(
        "--threads", metavar="N,...", type=_numbers, help="all processors by default"
    )
    parser.add_argument("--rounds", type=positive, default=15, help="rounds of turns, at least")
    parser.add_argument(
        "--seconds", type=positive, help="time of all rounds, at least, 2 by default"
    )
    parser.add_argument(
        "--profile",
        action="store_const",
        const=True,
        help="show where the time goes, op by op, against what the machine can do",
    )
    parser.add_argument(
        "--save",
        metavar="FOLDER",
        help="keep the rows there, in the folders of this machine and of the kind of model",
    )
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Measure every model; 1 when an engine could not run or disagreed."""
    threads = args.threads or (machine.cores(),)
    for count in threads:
        if count > machine.cores():
            message = f"--threads {count} is more than the {machine.cores()} processors here"
            raise Failure(message, usage=True)
    for name in args.against or () if args.train else ():
        if name not in ENGINES or not ENGINES[name].training:
            raise Failure(f"`{name}` does not train", "compare with `--against torch`", usage=True)
    rows: list[Measured] = []
    for model in args.model:
        rows += _measured(_request(model, threads, args), args)
    if args.json:
        say_json([row.as_json() for row in rows])
    return 0 if all(row.agrees for row in rows) else 1


# ---------------------------------------------------------------- helpers


def _request(model: str, threads: tuple[int, ...], args: Namespace) -> Request:
    given = {name: getattr(args, name) for name in ASKED if getattr(args, name) is not None}
    return Request(
        spec=model, variant=args.variant, options=tuple(args.set), sizes=dict(args.shape),
        peers=args.against, threads=threads, rounds=args.rounds, note=note, **given,
    )  # fmt: skip


def _measured(request: Request, args: Namespace) -> list[Measured]:
    """The rows of one model, shown and saved as they come."""
    program = request.load()
    kind = kind_of(program, request.peers)
    if not kind.fits(program):
        raise Failure(f"`{request.spec}` is not {kind.what}", usage=True)
    if request.peers == () and not kind.alone:
        hint = " or ".join(f"`--against {peer}`" for peer in kind.peers)
        raise Failure(f"{kind.what} is only measured side by side", hint, usage=True)
    for name in ASKED:
        if getattr(args, name) is not None and name not in kind.options:
            raise Failure(f"`--{name}` says nothing about {kind.what}", usage=True)
    found: list[Measured] = []
    with located_faults(program.sources):
        for rows in kind.measure(program, request):
            found += rows
            if not args.json:
                _show(rows)
            if args.save and rows:
                _save(Path(args.save), kind, rows)
    return found


def _save(folder: Path, kind: Kind, rows: Sequence[Measured]) -> None:
    try:
        path = save_results(folder, kind, rows)
        if kind is NETS:
            write_table(path.parent)
    except OSError as error:
        raise Failure(f"cannot write into `{folder}`: {reason(error)}") from error
    note(f"wrote {path}")


def _show(rows: Sequence[Measured]) -> None:
    nets = [row for row in rows if isinstance(row, Row)]
    if nets:
        _show_nets(nets)
    else:
        for row in rows:
            say(str(row))


def _show_nets(rows: Sequence[Row]) -> None:
    from rich.table import Table

    first = rows[0]
    what = "training, " if first.train else ""
    title = f"{first.model}, {what}batch {first.batch}, {first.threads} threads"
    table = Table(title=title, title_justify="left")
    table.add_column("engine")
    for name in ("ms", "quartiles", "ours faster by", "of peak", "MB", "cold s", "warm s", "error"):
        table.add_column(name, justify="right")
    table.add_column("setting", overflow="fold")
    for row in rows:
        table.add_row(row.engine, *_cells(row), row.note or row.setting)
    say_table(table)
    for row in (row for row in rows if row.profile):
        _show_profile(row)


def _cells(row: Row) -> list[str]:
    return [
        _text(row.ms and row.ms.median, "{:.2f}"),
        _range(row.ms),
        "-" if row.ratio is None else f"{row.ratio.median:.2f} ({_range(row.ratio)})",
        _text(row.peak_share, "{:.0%}"),
        _text(row.peak_mb, "{:.0f}") + _text(row.bound_mb, " (of {:.0f})", ""),
        _text(row.cold_s, "{:.2f}"),
        _text(row.warm_s, "{:.2f}"),
        _text(row.max_rel_err, "{:.1e}"),
    ]


def _show_profile(row: Row) -> None:
    from rich.table import Table

    title = f"{row.engine}: where the time goes"
    if row.machine is not None:
        title += (f"; the machine: {row.machine.flops / 1e9:.0f} GFLOP/s, "
                  f"{row.machine.bytes / 1e9:.1f} GB/s")  # fmt: skip
    table = Table(title=title, title_justify="left")
    table.add_column("operation", overflow="fold")
    for name in ("ms", "share", "GFLOP/s", "GB/s", "of roofline", "bound by"):
        table.add_column(name, justify="right")
    whole = total(row.profile)
    for op in (*row.profile, whole):
        if op is whole:
            table.add_section()
        known = row.machine if op.flops is not None else None
        table.add_row(
            op.name,
            f"{op.ms:.3f}",
            f"{op.ms / (whole.ms or 1.0):.1%}",
            _text(op.gflops, "{:.1f}"),
            _text(op.gbytes, "{:.1f}"),
            _text(known and known.roofline(op), "{:.0%}"),
            known.bound(op) if known else "",
        )
    say_table(table)


def _text(value: Any, form: str, missing: str = "-") -> str:
    return missing if value is None else form.format(value)


def _range(values: Spread | None) -> str:
    return "-" if values is None else f"{values.low:.2f}..{values.high:.2f}"


def _engines(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text != "none" else ()
    for name in names:
        if name not in PEERS:
            raise ArgumentTypeError(f"`{name}` is not one of {', '.join(PEERS)}")
    for kind in KINDS:
        inside = [name for name in names if name in kind.peers]
        if inside and len(inside) < len(names):
            other = next(name for name in names if name not in inside)
            raise ArgumentTypeError(
                f"`{inside[0]}` and `{other}` measure different kinds of models"
            )
    return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part.strip()) for part in text.split(","))
