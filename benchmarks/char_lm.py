"""A character model of Python's own help texts: validation loss in nats a character, and a sample.

    python benchmarks/char_lm.py [--out runs/char_lm] [--resume]

The text is ``pydoc_data.topics`` of the standard library; the last tenth is validated on and never
trained on. The run is that of the zoo's ``char_lm``. Results go to ``training/char_lm.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import tilth
from tilth.bench.results import describe_machine
from tilth.runtime.data import open_dataset
from tilth.runtime.data.writing import write_text

RESULTS = Path(__file__).with_name("training") / "char_lm.json"
PROMPT = "The "


def main() -> None:
    """Train, write a sample, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=None, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run there")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--engine", default="cpu", choices=("reference", "cpu"))
    args = parser.parse_args()
    program = tilth.load("char_lm")
    data = open_dataset("python_docs")
    start = time.perf_counter()
    run = program.train(out=args.out, resume=args.resume, engine=args.engine)
    seconds = time.perf_counter() - start
    if run.reason == "interrupted":
        raise SystemExit("interrupted; `--resume` goes on")
    alphabet = data.train.fields["text"].classes
    assert alphabet is not None
    text = write_text(
        lambda window: program.run({"text": window}, run.weights)["logits"],
        alphabet, PROMPT, 300, temperature=args.temperature,
    )  # fmt: skip
    losses = [values["loss"] for _, _, part, values in run.history if part == "validate"]
    print(f"validation loss {run.metrics['val loss']:.3f} nats a character, {seconds:.0f} s")
    print(PROMPT + text)
    RESULTS.parent.mkdir(exist_ok=True)
    held = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "validation_loss": run.metrics["val loss"],
        "by_epoch": losses,
        "engine": args.engine,
        "seconds": round(seconds),
        "sample": PROMPT + text,
    }
    RESULTS.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
