"""``tilth bench``: models against other engines, checked and then timed side by side."""

from __future__ import annotations

import importlib.util
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from ..bench.compare import Row, compare
from ..bench.decisions import compare_decisions, is_decision
from ..bench.engines import ENGINES, OWN, PEERS
from ..bench.fields import compare_fields, is_field
from ..bench.latent import COUNT, SIZE, compare_latent
from ..bench.latent import PEERS as LATENT
from ..bench.problem import Chosen, nominal_sizes
from ..bench.profiles import total
from ..bench.results import save_results
from ..bench.runner import Schedule, Spread
from ..bench.table import write_table
from ..program import located_faults, machine
from .console import Failure, note, reason, say, say_json, say_table
from .options import add_model_options, load_chosen, positive

DECISIONS = "quantecon"
"""The engine that solves decision processes rather than running nets."""

FIELDS = "pydensecrf"
"""The engine that does dense random fields."""


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", nargs="+", help="a file, or a name from the zoo")
    parser.add_argument(
        "--against",
        metavar="ENGINES",
        type=_engines,
        help=f"which of {', '.join(PEERS)}, with commas, or none; all installed ones by default;"
        " decision processes: quantecon; dense random fields: pydensecrf;"
        " latent variables: hmmlearn or sklearn",
    )
    parser.add_argument("--engine", choices=OWN, default=OWN[0], help="which of ours")
    parser.add_argument(
        "--train", action="store_true", help="measure steps of training: gradients and update too"
    )
    parser.add_argument("--batch", metavar="N,...", type=_numbers, default=(1,))
    parser.add_argument(
        "--threads", metavar="N,...", type=_numbers, help="all processors by default"
    )
    parser.add_argument("--rounds", type=positive, default=15, help="rounds of turns, at least")
    parser.add_argument("--seconds", type=positive, default=2, help="time of all rounds, at least")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="show where the time goes, op by op, against what the machine can do",
    )
    parser.add_argument(
        "--save",
        metavar="FOLDER",
        help="keep the rows there, in this machine's folder: a file a model, and a table of all",
    )
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Measure every model; 1 when an engine could not run or disagreed."""
    if args.against == (DECISIONS,):
        return _decisions(args)
    if args.against == (FIELDS,):
        return _fields(args)
    if args.against and args.against[0] in LATENT:
        return _latent(args)
    peers = args.against
    if peers is None:
        peers = tuple(name for name in PEERS if ENGINES[name].installed)
        peers = tuple(name for name in peers if ENGINES[name].training or not args.train)
    for name in peers:
        if args.train and not ENGINES[name].training:
            raise Failure(f"`{name}` does not train", "compare with `--against torch`", usage=True)
        if not ENGINES[name].installed:
            raise Failure(f"`{name}` is not installed", f"pip install {ENGINES[name].package}")
        if ENGINES[name].reads_onnx and importlib.util.find_spec("onnx") is None:
            message = f"`{name}` reads the model as ONNX, and `onnx`, which writes it, is not there"
            raise Failure(message, "pip install onnx")
    threads = args.threads or (machine.cores(),)
    for count in threads:
        if count > machine.cores():
            message = f"--threads {count} is more than the {machine.cores()} processors here"
            raise Failure(message, usage=True)
    rows: list[Row] = []
    for model in args.model:
        found = [row for batch in args.batch for row in _bench(model, batch, threads, peers, args)]
        rows += found
        if args.save:
            _save(Path(args.save), found)
    if args.json:
        say_json([row.as_json() for row in rows])
    return 1 if any(row.note for row in rows) else 0


# ---------------------------------------------------------------- helpers


def _decisions(args: Namespace) -> int:
    """Decision processes, each method against QuantEcon's."""
    rows = []
    for model in args.model:
        program = load_chosen(model, args)
        if not is_decision(program):
            raise Failure(f"`{model}` is no decision process", usage=True)
        with located_faults(program.sources):
            for threads in args.threads or (machine.cores(),):
                rows += compare_decisions(program, args.rounds, threads)
    if args.json:
        say_json([row.as_json() for row in rows])
    else:
        for row in rows:
            say(f"{row.model}, {row.method}, {row.threads} threads: {row.ms:.2f} ms,"
                f" quantecon {row.quantecon_ms:.2f} ms, {row.ratio:.2f} times faster,"
                f" difference {row.max_difference:.1e}")  # fmt: skip
    return 0 if all(row.agrees for row in rows) else 1


def _fields(args: Namespace) -> int:
    """Dense random fields against pydensecrf."""
    rows = []
    for model in args.model:
        program = load_chosen(model, args)
        if not is_field(program):
            raise Failure(f"`{model}` is not a dense random field of the zoo", usage=True)
        with located_faults(program.sources):
            for threads in args.threads or (machine.cores(),):
                rows.append(compare_fields(program, args.rounds, threads))
    if args.json:
        say_json([row.as_json() for row in rows])
    for row in () if args.json else rows:
        say(f"{row.model}, {row.threads} threads: {row.ms:.1f} ms, pydensecrf"
            f" {row.pydensecrf_ms:.1f} ms, {row.ratio:.2f} times faster; from the exact answer"
            f" {row.error:.1e} and {row.pydensecrf_error:.1e}")  # fmt: skip
    return 0 if all(row.agrees for row in rows) else 1


def _latent(args: Namespace) -> int:
    """Latent-variable models, each question against a peer's."""
    peer, rows = args.against[0], []
    if args.threads not in (None, (machine.cores(),)):
        message = f"these models are measured with all {machine.cores()} processors"
        raise Failure(message, usage=True)
    for model in args.model:
        sizes = dict(args.shape)
        program = load_chosen(model, Namespace(**{**vars(args), "shape": []}))
        with located_faults(program.sources):
            found = compare_latent(program, peer, sizes.get(SIZE[peer], COUNT), args.rounds)
        rows += found
        if args.save:
            own = [
                {**row.as_json(), "batch": row.count, "engine": f"{row.question} {row.setting}"}
                for row in found
            ]
            file = f"latent/{found[0].model}_{peer}"
            note(f"wrote {save_results(Path(args.save), file, own)}")
    if args.json:
        say_json([row.as_json() for row in rows])
    else:
        for row in rows:
            say(f"{row.model}, {row.question}, {row.threads} threads: {row.ms:.1f} ms,"
                f" {row.peer} {row.setting} {row.peer_ms:.1f} ms, {row.ratio:.1f} times faster,"
                f" difference {row.difference:.1e}")  # fmt: skip
    return 0 if all(row.agrees for row in rows) else 1


def _bench(
    model: str, batch: int, threads: tuple[int, ...], peers: tuple[str, ...], args: Namespace
) -> list[Row]:
    program = load_chosen(model, Namespace(**{**vars(args), "shape": []}))
    label = program.variant or program.name
    found: list[Row] = []
    with located_faults(program.sources):
        sizes = nominal_sizes(program, batch, dict(args.shape))
        chosen = Chosen(model, args.variant, tuple(args.set), sizes, args.train)
        schedule = Schedule(rounds=args.rounds, seconds=args.seconds)
        parts = (chosen, label, peers, args.engine, threads, schedule, note, args.profile)
        for rows in compare(*parts):
            found += rows
            if not args.json:
                _show(rows)
    return found


def _save(folder: Path, rows: list[Row]) -> None:
    try:
        name = f"{rows[0].model}.train" if rows[0].train else rows[0].model
        path = save_results(folder, name, [row.as_record() for row in rows])
        write_table(path.parent)
    except OSError as error:
        raise Failure(f"cannot write into `{folder}`: {reason(error)}") from error
    note(f"wrote {path}")


def _show(rows: list[Row]) -> None:
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
        alone = name in (DECISIONS, FIELDS, *LATENT)
        if name not in PEERS and (not alone or len(names) > 1):
            raise ArgumentTypeError(f"`{name}` is not one of {', '.join(PEERS)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part.strip()) for part in text.split(","))
