"""Drawings of runs and the confusion matrix."""

import builtins
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.train.confusion import Confusion, read_confusion
from tilth.runtime.train.logging import MetricsLog
from tilth.runtime.train.plot import plot_runs


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "x"
    with MetricsLog(folder, ["loss", "accuracy", "lr"]) as log:
        for step in range(1, 9):
            log.write(step, step / 4, "train", {"loss": 10.0 ** (-step), "lr": 0.1})
            if step % 4 == 0:
                values = {"loss": 2 / step, "accuracy": step / 9}
                log.write(step, step / 4, "validate", values)
    return folder


def fault_of(action):
    with pytest.raises(RuntimeFault) as caught:
        action()
    return caught.value


def texts(path):
    return {node.text for node in ET.parse(path).iter() if node.tag.endswith("text")}


def test_curves_as_png_and_svg(run):
    written = plot_runs([run])
    assert [path.name for path in written] == ["curves.png", "curves.svg"]
    with Image.open(written[0]) as picture:
        assert picture.format == "PNG" and picture.width > 800
    assert {"loss", "accuracy", "lr", "train", "validate", "epoch"} <= texts(written[1])
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in plot_runs([run])] == before


def test_several_runs_in_one_drawing(run, tmp_path):
    other = tmp_path / "y"
    with MetricsLog(other, ["loss"]) as log:
        log.write(1, 1, "train", {"loss": float("nan")})
    (path,) = plot_runs([run, other], tmp_path / "both.svg")
    assert {"x train", "x validate", "y train"} <= texts(path)


def test_the_confusion_matrix_is_drawn(run):
    confusion = Confusion(["cat", "dog"])
    confusion.add(np.array([0, 0, 1]), np.eye(2)[[0, 1, 1]])
    confusion.save(run)
    written = plot_runs([run], formats=["svg"])
    assert [path.name for path in written] == ["curves.svg", "confusion.svg"]
    assert {"cat", "dog", "predicted", "true", "accuracy 0.6667"} <= texts(written[1])


def test_faults(run, tmp_path, monkeypatch):
    assert fault_of(lambda: plot_runs([tmp_path / "none"])).code == "E803"
    assert fault_of(lambda: plot_runs([run], tmp_path / "a.jpg")).code == "E806"
    assert fault_of(lambda: plot_runs([run], tmp_path / "none" / "a.png")).code == "E806"
    MetricsLog(tmp_path / "empty", ["loss"]).close()
    assert "no rows yet" in fault_of(lambda: plot_runs([tmp_path / "empty"])).message
    (run / "metrics.csv").write_text("step,epoch,part,seconds,loss\n1,1,train,0,high\n")
    assert fault_of(lambda: plot_runs([run])).code == "E803"


def test_a_missing_extra_says_how_to_install_it(run, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    fault = fault_of(lambda: plot_runs([run]))
    assert (fault.code, fault.hint) == ("E804", "pip install 'tilth[plot]'")


def test_confusion_is_scikit_learns(tmp_path):
    rng = np.random.default_rng(0)
    names = ["a", "b", "c, d", "e"]
    labels, scores = rng.integers(0, 4, 200), rng.standard_normal((200, 4))
    confusion = Confusion(names)
    for start in range(0, 200, 64):
        confusion.add(labels[start : start + 64], scores[start : start + 64])
    predicted = scores.argmax(1)
    np.testing.assert_array_equal(confusion.counts, metrics.confusion_matrix(labels, predicted))
    assert confusion.accuracy == metrics.accuracy_score(labels, predicted)
    np.testing.assert_allclose(
        confusion.recall, metrics.recall_score(labels, predicted, average=None)
    )
    np.testing.assert_allclose(
        confusion.precision, metrics.precision_score(labels, predicted, average=None)
    )
    again = read_confusion(confusion.save(tmp_path))
    assert again.classes == tuple(names)
    np.testing.assert_array_equal(again.counts, confusion.counts)
    true, wrong, count = confusion.worst(1)[0]
    off = confusion.counts - np.diag(np.diag(confusion.counts))
    assert count == off.max() == off[names.index(true), names.index(wrong)]


def test_shares_of_classes_pixels_and_labels_that_do_not_count():
    confusion = Confusion(["a", "b"])
    confusion.add(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert confusion.counts.tolist() == [[1, 0], [1, 0]]
    scores = np.zeros((1, 2, 2, 2))
    scores[0, 1] = [[1, 1], [-1, 1]]
    confusion.add(np.array([[[0, 1], [0, -100]]]), scores)
    assert confusion.counts.tolist() == [[2, 1], [1, 1]]
    assert np.isnan(Confusion(["a"]).accuracy)
    assert Confusion(["a", "b"]).worst() == []
    fault = fault_of(lambda: confusion.add(np.zeros(3, int), np.zeros((3, 5))))
    assert fault.code == "E802"


def test_tables_that_are_none(tmp_path):
    for text in ("", "a,b\n1,2\n", "x,a\na,many\n"):
        (tmp_path / "confusion.csv").write_text(text)
        assert fault_of(lambda: read_confusion(tmp_path / "confusion.csv")).code == "E803"
