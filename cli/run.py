"""``tilth run``: a model on inputs from files, pictures or a seed."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import Any

import numpy as np

from ..program import (
    ENGINES,
    Preprocess,
    Program,
    located_faults,
    read_labels,
    save_outputs,
    top_classes,
)
from .console import Failure, columns, note, say, say_json
from .options import add_model_options, load_chosen, numbers, positive


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help="a file, or a name from the zoo")
    parser.add_argument(
        "--input",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a picture, FILE.npy, FILE.npz[:KEY], random or zeros",
    )
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors or .npz file")
    parser.add_argument(
        "--no-strict", action="store_true", help="use the weights that fit, initialise the rest"
    )
    parser.add_argument("--seed", type=int, default=0, help="of initialisers and random inputs")
    parser.add_argument("--precision", choices=("f32", "f64"), help="compute in this float type")
    parser.add_argument("--top", type=positive, metavar="K", help="the K likeliest classes")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    parser.add_argument("--output", metavar="FILE", help="save the outputs as .npz or .npy")
    parser.add_argument("--json", action="store_true", help="print an object")
    parser.add_argument(
        "--fit",
        choices=("crop", "stretch", "keep"),
        default="crop",
        help="how pictures are resized",
    )
    parser.add_argument("--mean", type=numbers, metavar="R,G,B", help="subtracted from pictures")
    parser.add_argument("--std", type=numbers, metavar="R,G,B", help="pictures are divided by it")
    add_model_options(parser)


def run(args: Namespace) -> int:
    """Run a model once."""
    if args.labels and not args.top:
        raise Failure("--labels needs --top", "`--top 5` prints the five likeliest", usage=True)
    with located_faults({}):
        labels = read_labels(args.labels) if args.labels else []
    program = load_chosen(args.spec, args)
    program.require_runnable(args.engine, args.precision)
    preprocess = Preprocess(fit=args.fit, mean=args.mean, std=args.std)
    inputs = program.read_inputs(args.input, args.seed, preprocess)
    if args.weights is None and program.parameters():
        note(f"no --weights: the spec's initialisers are used with seed {args.seed}")
    start = time.perf_counter()
    outputs = program.run(
        inputs, args.weights, args.seed, args.engine, args.precision, not args.no_strict, note
    )
    note(f"{args.engine}: {time.perf_counter() - start:.2f} s")
    with located_faults({}):
        if args.output:
            save_outputs(args.output, outputs)
            note(f"wrote {args.output}")
        top = top_classes(outputs, args.top) if args.top else None
    if args.json:
        say_json(_as_json(program, args, outputs, top, labels))
    else:
        _show(outputs, top, labels)
    return 0


def _show(outputs: dict[str, np.ndarray], top: Any, labels: list[str]) -> None:
    if top is None:
        for line in columns([_summary(name, array) for name, array in outputs.items()], ""):
            say(line)
        return
    name, examples = top
    for number, ranking in enumerate(examples):
        say(f"{name}" + (f"[{number}]" if len(examples) > 1 else ""))
        rows = [(str(c), f"{p:.4f}", _label(labels, c)) for c, p in ranking]
        for line in columns(rows):
            say(line)


def _summary(name: str, array: np.ndarray) -> tuple[str, str, str]:
    kind = f"{array.dtype}{list(array.shape)}"
    if array.size == 0:
        return name, kind, "empty"
    if array.size <= 8:
        return name, kind, np.array2string(array, separator=", ", max_line_width=10**6)
    numbers = array.astype(np.float64)
    low, high, mean = (f"{f(numbers):.6g}" for f in (np.min, np.max, np.mean))
    return name, kind, f"min {low}, max {high}, mean {mean}"


def _as_json(
    program: Program, args: Namespace, outputs: dict[str, np.ndarray], top: Any, labels: list[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": program.name,
        "variant": program.variant,
        "engine": args.engine,
        "weights": args.weights,
        "seed": args.seed,
        "outputs": {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in outputs.items()
        },
        "diagnostics": [],
    }
    if top is not None:
        name, examples = top
        found["top"] = [
            [{"class": c, "probability": p, "label": _label(labels, c) or None} for c, p in row]
            for row in examples
        ]
        found["top_of"] = name
    return found


def _label(labels: list[str], number: int) -> str:
    return labels[number] if number < len(labels) else ""
