"""What goes wrong in a run that has a checkpoint: one clear message, and the checkpoint stays."""

import errno
import os
import re

import numpy as np
import pytest
from PIL import Image
from tilth.cli.main import main
from tilth.program import SpecError, load
from tilth.runtime.train import checkpoints
from tilth.runtime.train.checkpoints import LAST, read_checkpoint
from tilth.training import Silent

SPEC = """tilth: 1
name: shades
data:
  files: {path: pictures, format: images}
model: |
  input image : f32[N, 3, 6, 6]
  y = image >> conv(4, 3) as conv >> relu >> gap >> linear(2) as head
  output y
train:
  data: files
  objective: |
    input label : i32[N]
    loss = cross_entropy(y, label)
  optimizer: sgd(lr=0.1)
  batch: 4
  epochs: 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A spec, its pictures, and a run of one epoch."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(level - 50, level + 50, (6, 6, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    (tmp_path / "shades.yaml").write_text(SPEC, encoding="utf-8")
    load("shades.yaml").train(epochs=1, out="run", show=False)
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:50])


def corrupted(folder):
    """A picture with other bytes behind its header; as long as before."""
    file = folder / "pictures" / "dark" / "5.png"
    data = file.read_bytes()
    file.write_bytes(data[:30] + bytes(len(data) - 30))


def smaller(folder):
    """Arrays of another size."""
    image = np.zeros((16, 3, 5, 5), np.float32)
    np.savez(folder / "arrays.npz", image=image, label=np.zeros(16, np.int32))


def emptied(folder):
    for file in folder.glob("pictures/*/*.png"):
        file.unlink()


def third_class(folder):
    (folder / "pictures" / "odd").mkdir()
    (folder / "pictures" / "light" / "3.png").rename(folder / "pictures" / "odd" / "0.png")


FAULTS = {
    "missing folder": (
        lambda folder: (folder / "pictures").rename(folder / "elsewhere"), (),
        r"error\[E803\]: cannot read `pictures`: no such file or folder",
    ),
    "missing file": (
        lambda folder: None, ("--data", "nothing.npz"),
        r"error\[E803\]: cannot read `nothing.npz`: no such file",
    ),
    "corrupt picture": (
        corrupted, (), r"error\[E803\]: cannot read `.*dark/5.png`: ",
    ),
    "wrong shape": (
        smaller, ("--data", "arrays.npz"),
        r"error\[E802\]: input `image` does not fit: expected f32\[N, 3, 6, 6\]",
    ),
    "empty set": (emptied, (), r"error\[E807\]: .*no pictures"),
    "label out of range": (
        third_class, (),
        r"error\[E807\]: `label` of example 15 is 2, and there are 2 classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_bad_data_is_told_in_one_message_and_the_checkpoint_stays(folder, name, capsys):
    spoil, words, said = FAULTS[name]
    before = (folder / "run" / LAST).read_bytes()
    spoil(folder)
    capsys.readouterr()
    assert main(["train", "shades.yaml", "--out", "run", "--resume", *words]) == 1
    text = capsys.readouterr().err
    assert re.search(said, text) and text.count("error[") == 1 and "Traceback" not in text, text
    assert (folder / "run" / LAST).read_bytes() == before


def test_a_cut_off_checkpoint_is_told_and_the_one_before_is_gone_on_from(folder):
    whole = load("shades.yaml").train(epochs=3, show=False)
    load("shades.yaml").train(epochs=2, out="run", resume=True, show=False)
    cut(folder / "run" / LAST)
    said = []

    class Hearing(Silent):
        def say(self, text):
            said.append(text)

    run = load("shades.yaml").train(epochs=3, out="run", resume=True, show=Hearing())
    assert "is damaged" in said[0] and "going on from `previous.safetensors`" in said[0]
    assert "after epoch 1" in said[1]
    assert all(np.array_equal(run.weights[path], whole.weights[path]) for path in whole.weights)


def test_without_any_whole_checkpoint_nothing_is_trained(folder):
    for file in (folder / "run").glob("*.safetensors"):
        cut(file)
    with pytest.raises(SpecError, match=r"error\[E808\]: no checkpoint in `run` can be used"):
        load("shades.yaml").train(out="run", resume=True, show=False)


def test_a_full_disk_stops_the_run_with_its_checkpoint(folder, monkeypatch):
    def full(arrays, path, metadata):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = (folder / "run" / LAST).read_bytes()
    with monkeypatch.context() as patched, pytest.raises(SpecError) as caught:
        patched.setattr(checkpoints, "save_file", full)
        load("shades.yaml").train(out="run", resume=True, show=False)
    assert "error[E806]" in str(caught.value) and "no space left on device" in str(caught.value)
    assert (folder / "run" / LAST).read_bytes() == before
    assert read_checkpoint(folder / "run" / LAST).state["epoch"] == 1
    assert load("shades.yaml").train(out="run", resume=True, show=False).epochs == 2
