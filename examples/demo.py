"""Check ResNet-50, draw it, run it, compile it; fit, sharpen; train LeNet last: ``make demo``.

Everything that it does is what the command line does; each step prints the command.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import sharpen
import vowels
from PIL import Image
from sklearn.datasets import load_sample_image
from tilth.cli.main import main
from tilth.runtime.train.confusion import read_confusion

OUT = Path(__file__).resolve().parents[1] / "out"
SPEC = "resnet50"


def demo() -> int:
    """Run every step; stop at the first that fails."""
    OUT.mkdir(exist_ok=True)
    photo = OUT / "china.jpg"
    Image.fromarray(load_sample_image("china.jpg")).save(photo, quality=95)
    print(f"A photograph of a temple, from scikit-learn's samples: {photo}")

    heading("1. Prove what the paper and torchvision say about ResNet-50")
    if code := tilth("check", SPEC):
        return code

    heading("2. Look at it")
    for words in (
        ("inspect", SPEC, "--depth", "1"),
        ("inspect", SPEC, "--format", "svg", "--depth", "2", "-o", str(OUT / "resnet50.svg")),
        ("inspect", SPEC, "--format", "html", "-o", str(OUT / "resnet50.html")),
    ):
        if code := tilth(*words):
            return code

    heading("3. Run it on the photograph, with the reference interpreter")
    print("There are no pretrained weights here: they are initialised from a seed, so that the")
    print("classes below mean nothing. With a checkpoint of torchvision, saved as safetensors,")
    print("`--weights resnet50.safetensors` gives its answers.")
    saved = str(OUT / "logits.npz")
    words = ("run", SPEC, "--input", f"image={photo}", "--seed", "0", "--top", "5")
    if code := tilth(*words, "--output", saved):
        return code

    heading("4. Compile it for this CPU, and run the same photograph")
    fast = str(OUT / "logits_cpu.npz")
    words = ("run", SPEC, "--engine", "cpu", "--input", f"image={photo}", "--seed", "0")
    if code := tilth(*words, "--output", fast):
        return code
    reference, compiled = np.load(saved)["logits"], np.load(fast)["logits"]
    error = np.abs(compiled - reference).max() / np.abs(reference).max()
    print(f"compiled against reference: max |difference| / max |reference| = {error:.2e}")
    if not error < 1e-4:
        return 1
    if code := tilth("compile", SPEC, "-o", str(OUT / "resnet50.py")):
        return code

    heading("5. A spec with a mistake in it")
    text = BROKEN.read_text(encoding="utf-8")
    print(text)
    tilth("check", str(BROKEN))

    heading("6. Vowels and consonants: a hidden Markov model reads the licence of Python")
    if code := read_letters():
        return code

    heading("7. A noisy labelling of the photograph, sharpened by a dense random field")
    print("$ tilth run dense_crf_normalised --engine cpu ...  (from examples/sharpen.py)")
    before, after = sharpen.sharpen(OUT / "sharpened.png")
    print(f"pixels with the right label: {before:.1%} before, {after:.1%} after")

    heading("8. Train LeNet on real handwritten digits")
    run = OUT / "lenet"
    shutil.rmtree(run, ignore_errors=True)  # what an earlier demo left
    quick = ("--set", f"train.epochs={EPOCHS}", "--set", f"train.schedule={SCHEDULE}")
    if code := tilth("train", "lenet", "--out", str(run), *quick):
        return code
    if code := tilth("plot", str(run)):
        return code
    print("\nWritten: " + ", ".join(str(path) for path in sorted(OUT.iterdir())))
    found = read_confusion(run / "confusion.csv")
    print(
        f"LeNet's accuracy on {found.counts.sum()} digits that it never saw: {found.accuracy:.2%}"
    )
    return 0


EPOCHS = 10
SCHEDULE = f"one_cycle({EPOCHS}, max=0.2, momentum=[0.85, 0.95])"


def read_letters() -> int:
    """Learn two states from English text and show which letters each emits."""
    data, begin, fitted = (str(OUT / name) for name in ("letter.npy", "start.npz", "fitted.npz"))
    np.save(data, vowels.letters())
    np.savez(begin, **vowels.start())
    words = ("fit", "letters", "--data", f"letter={data}", "--weights", begin, "--tol", "0.1")
    if code := tilth(*words, "--out", fitted):
        return code
    for place, letters in enumerate(vowels.groups(np.load(fitted)["B"])):
        print(f"state {place}: {' '.join(letters.replace(' ', '_'))}")
    return 0


BROKEN = Path(__file__).with_name("broken.yaml")


def heading(text: str) -> None:
    """A title between steps."""
    print(f"\n{text}\n{'-' * len(text)}")


def tilth(*words: str) -> int:
    """One command, shown, timed and run in this process."""
    print("$ tilth " + " ".join(str(word) for word in words), flush=True)
    start = time.perf_counter()
    code = main([str(word) for word in words])
    print(f"[{time.perf_counter() - start:.2f} s]")
    return code


if __name__ == "__main__":
    raise SystemExit(demo())
