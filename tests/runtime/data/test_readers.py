"""Readers of file formats, against files made here by the formats' own definitions."""

import gzip
import io
import pickle
import re
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image
from tilth.runtime.data import Source, is_examples, open_dataset

RNG = np.random.default_rng(0)


def everything(dataset):
    return dataset.take(np.arange(len(dataset)))


# ---------------------------------------------------------------- tables


def test_csv_columns_are_fields(tmp_path):
    (tmp_path / "a.csv").write_text(
        'x,n, name,y\n1.5,3,"b, c",nan\n\n-2e3,4,a,1\n0.25,5,"b, c",0\n', encoding="utf-8"
    )
    data = open_dataset("a.csv", tmp_path).train
    batch = everything(data)
    np.testing.assert_array_equal(batch["x"], np.array([1.5, -2000, 0.25], np.float32))
    assert batch["n"].dtype == np.int64 and batch["n"].tolist() == [3, 4, 5]
    assert data.fields["name"].classes == ("a", "b, c") and batch["name"].tolist() == [1, 0, 1]
    assert np.isnan(batch["y"][0])


def test_csv_without_header_and_with_columns(tmp_path):
    rows = [[*range(10 * i, 10 * i + 5), i % 2] for i in range(4)]
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(map(str, row)) for row in rows))
    columns = {"x": ("1..4",), "y": ("5",), "pair": ("0", "4")}
    source = Source(path="a.tsv", header=False, columns=columns)
    batch = everything(open_dataset(source, tmp_path).train)
    np.testing.assert_array_equal(batch["x"], np.array(rows)[:, 1:4])
    np.testing.assert_array_equal(batch["pair"], np.array(rows)[:, [0, 4]])
    assert batch["y"].tolist() == [0, 1, 0, 1] and batch.keys() == columns.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "`a.csv` has no rows"),
        ("a,b\n", "has no examples, only a header"),
        ("a,b\n1,2\n3,x\n", "a.csv:3: column `b`: `x` is not a number"),
        ("a,b\n1,2\n,5\n", "a.csv:3: column `a`: the cell is empty"),
        ("a,b\n1,2\n1,2,3\n", "a.csv:3: there are 3 cells, and 2 columns"),
        ("a,a\n1,2\n", "two columns of `a.csv` are called `a`"),
    ],
)
def test_bad_tables(tmp_path, fault_of, text, said):
    (tmp_path / "a.csv").write_text(text)
    fault = fault_of(lambda: open_dataset("a.csv", tmp_path))
    assert fault.code == "E807" and said in fault.message


def test_columns_that_are_not_there(tmp_path, fault_of):
    (tmp_path / "a.csv").write_text("width,kind\n1,x\n2,y\n")
    opened = lambda **columns: open_dataset(Source(path="a.csv", columns=columns), tmp_path)  # noqa: E731
    fault = fault_of(lambda: opened(x=("widht",)))
    assert (fault.message, fault.hint) == ("the data has no field `widht`", "did you mean `width`?")
    assert "cannot be one number" in fault_of(lambda: opened(x=("width", "kind"))).message
    assert "no field `0..9`" in fault_of(lambda: opened(x=("0..9",))).message
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    assert fault_of(lambda: open_dataset("a.csv", tmp_path)).code == "E803"


# ---------------------------------------------------------------- idx


def idx(array, kind):
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def mnist(folder, zipped):
    pictures = RNG.integers(0, 256, (7, 5, 6), np.uint8)
    labels = np.array([3, 0, 1, 2, 3, 3, 0], np.uint8)
    for part, some in (("train", slice(0, 5)), ("t10k", slice(5, 7))):
        for name, data in (
            (f"{part}-images-idx3-ubyte", idx(pictures[some], 8)),
            (f"{part}-labels-idx1-ubyte", idx(labels[some], 8)),
        ):
            file = folder / (f"{name}.gz" if zipped else name)
            file.write_bytes(gzip.compress(data) if zipped else data)
    return pictures, labels


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folders(tmp_path, zipped):
    pictures, labels = mnist(tmp_path, zipped)
    data = open_dataset(Source(path=str(tmp_path), format="idx"))
    assert (len(data.train), len(data.held_out)) == (5, 2)
    batch = everything(data.train)
    np.testing.assert_allclose(batch["image"], pictures[:5, None] / np.float32(255), rtol=1e-6)
    assert batch["label"].tolist() == labels[:5].tolist()
    assert data.train.fields["label"].classes == ("0", "1", "2", "3")


def test_idx_files_of_every_type(tmp_path):
    for kind, dtype in ((8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")):
        array = np.arange(12).reshape(3, 4).astype(dtype)
        (tmp_path / "a").write_bytes(idx(array, kind))
        batch = everything(open_dataset(Source(path="a", format="idx"), tmp_path).train)
        np.testing.assert_array_equal(batch["x"], array)
        assert batch["x"].dtype.isnative


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is not an IDX file"),
        (b"\x89PNG....", "it is not an IDX file"),
        (bytes([0, 0, 8, 3, 0, 0]), "it has 6 bytes where its header says"),
        (idx(np.zeros((4, 4), np.uint8), 8)[:-3], "it has 25 bytes where its header says 28"),
        (gzip.compress(bytes(100))[:-9], "end-of-stream"),
        (b"\x1f\x8b nonsense", "not a gzipped file|unknown compression|Unknown compression"),
    ],
    ids=["empty", "other", "head", "short", "cut", "nonsense"],
)
def test_bad_idx_files(tmp_path, fault_of, data, said):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
    fault = fault_of(lambda: open_dataset(Source(path=str(tmp_path), format="idx")))
    assert fault.code == "E803" and re.search(said, fault.message)


def test_idx_folders_without_pictures(tmp_path, fault_of):
    opened = lambda: open_dataset(Source(path=str(tmp_path), format="idx"))  # noqa: E731
    assert "no files called like" in fault_of(opened).message
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8), 8))
    assert "no images" in fault_of(opened).message


# ---------------------------------------------------------------- cifar


def cifar_rows(count, classes):
    pixels = RNG.integers(0, 256, (count, 3072), np.uint8)
    return pixels, RNG.integers(0, classes, count)


def write_cifar(folder, kind, layout):
    """One of the four layouts; the rows by part."""
    ten = kind == 10
    names = [f"data_batch_{i}" for i in range(1, 6)] if ten else ["train"]
    rows = {}
    for name in [*names, "test_batch" if ten else "test"]:
        pixels, labels = cifar_rows(2, kind)
        rows.setdefault("test" if "test" in name else "train", []).append((pixels, labels))
        if layout == "binary":
            head = labels[:, None].astype(np.uint8)
            head = head if ten else np.hstack([head // 5, head])
            (folder / f"{name}.bin").write_bytes(np.hstack([head, pixels]).tobytes())
        else:
            table = {b"data": pixels, b"batch_label": b"some"}
            table |= {b"labels": labels.tolist()} if ten else {
                b"fine_labels": labels.tolist(), b"coarse_labels": (labels // 5).tolist(),
            }  # fmt: skip
            (folder / name).write_bytes(pickle.dumps(table, protocol=2))
    if ten and layout == "binary":
        (folder / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n")
    elif ten:
        names = {b"label_names": [f"class{i}".encode() for i in range(10)]}
        (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return {
        part: (np.concatenate([p for p, _ in found]), np.concatenate([n for _, n in found]))
        for part, found in rows.items()
    }


@pytest.mark.parametrize("kind", [10, 100])
@pytest.mark.parametrize("layout", ["binary", "python"])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar(tmp_path, kind, layout, packed):
    folder = tmp_path / "cifar"
    folder.mkdir()
    rows = write_cifar(folder, kind, layout)
    if packed:
        with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
            archive.add(folder, "cifar-batches")
    source = Source(path="cifar.tar.gz" if packed else "cifar", format="cifar")
    data = open_dataset(source, tmp_path)
    for part, (pixels, labels) in rows.items():
        batch = everything(data.parts[part])
        want = pixels.reshape(-1, 3, 32, 32) / np.float32(255)
        np.testing.assert_allclose(batch["image"], want, rtol=1e-6)
        np.testing.assert_array_equal(batch["label"], labels)
        if kind == 100:
            np.testing.assert_array_equal(batch["coarse"], labels // 5)
    names = data.train.fields["label"].classes
    assert len(names) == kind and names[3] == ("class3" if kind == 10 else "3")


def test_pickles_as_python_2_wrote_them(tmp_path):
    """The real files are of protocol 2 by Python 2: text for bytes, and `numpy.core`."""
    pixels = np.arange(3072, dtype=np.int64).astype(np.uint8)
    body = pixels.tobytes()
    stream = io.BytesIO()
    stream.write(b"\x80\x02}q\x01(U\x04datacnumpy.core.multiarray\n_reconstruct\n")
    stream.write(b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n")
    stream.write(b"U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
    stream.write(b"\x89T" + struct.pack("<i", 3072) + body + b"tb")
    stream.write(b"U\x06labels]K\x07au.")
    (tmp_path / "data_batch_1").write_bytes(stream.getvalue())
    batch = everything(open_dataset(Source(path=str(tmp_path), format="cifar")).train)
    np.testing.assert_array_equal(np.round(batch["image"].reshape(-1) * 255), pixels)
    assert batch["label"].tolist() == [7]


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({b"data": Evil()}, "it asks for `posix.system`"),
        (Evil(), "it asks for"),
        ([1], "it is not a table"),
        ({b"labels": [1]}, "it has no pixels"),
        ({b"data": np.zeros((1, 3072)), b"labels": [1]}, "not of bytes"),
        ({b"data": np.zeros((1, 3072), object), b"labels": [1]}, "not of bytes"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "no `labels` for each"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["x"]}, "what is not a class"),
    ],
)
def test_pickles_are_never_run(tmp_path, fault_of, monkeypatch, table, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(table, protocol=2))
    fault = fault_of(lambda: open_dataset(Source(path=str(tmp_path), format="cifar")))
    assert fault.code == "E803" and said in fault.message
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("data", [b"", b"\x80", b"garbage", b"\x80\x02}q\x01("])
def test_broken_pickles_and_cut_off_records(tmp_path, fault_of, data):
    (tmp_path / "data_batch_1").write_bytes(data)
    opened = lambda: open_dataset(Source(path=str(tmp_path), format="cifar"))  # noqa: E731
    assert fault_of(opened).code == "E803"
    (tmp_path / "data_batch_1").unlink()
    assert "no files called like" in fault_of(opened).message
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073 + 5))
    assert "are not records of 3073" in fault_of(opened).message
    (tmp_path / "data_batch_1.bin").write_bytes(b"\x0a" + bytes(3072))
    fault = fault_of(opened)
    assert fault.code == "E807" and "is 10, and there are 10 classes" in fault.message
    (tmp_path / "a.tar.gz").write_bytes(b"not a tar")
    path = str(tmp_path / "a.tar.gz")
    assert fault_of(lambda: open_dataset(Source(path=path, format="cifar"))).code == "E803"


# ---------------------------------------------------------------- folders of pictures


def write_pictures(folder, grey=False, sizes=((6, 8),)):
    made = {}
    for number, name in enumerate(("cat", "ant", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(number + 1):
            height, width = sizes[(number + i) % len(sizes)]
            shape = (height, width) if grey else (height, width, 3)
            pixels = RNG.integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
            made[f"{name}/{i}"] = pixels
    (folder / "ant" / "notes.txt").write_text("not a picture")
    return made


@pytest.mark.parametrize("grey", [False, True])
def test_folders_of_pictures(tmp_path, grey):
    made = write_pictures(tmp_path, grey)
    data = open_dataset(Source(path=str(tmp_path), format="images")).train
    assert data.fields["label"].classes == ("ant", "cat", "dog")
    batch = everything(data)
    assert batch["label"].tolist() == [0, 0, 1, 2, 2, 2]
    for picture, name in zip(batch["image"], sorted(made), strict=True):
        want = made[name][None] if grey else made[name].transpose(2, 0, 1)
        np.testing.assert_allclose(picture, want / np.float32(255), atol=1e-6)


def test_parts_in_folders_share_their_classes(tmp_path):
    write_pictures(tmp_path / "train")
    (tmp_path / "val" / "dog").mkdir(parents=True)
    Image.new("RGB", (8, 6), "red").save(tmp_path / "val" / "dog" / "0.jpg")
    source = Source(path=str(tmp_path), format="images", mean=(0.5,), std=(0.25,))
    data = open_dataset(source)
    assert data.held_out.column("label").tolist() == [2]
    red = everything(data.held_out)["image"][0].mean((1, 2))
    np.testing.assert_allclose(red, [2, -2, -2], atol=0.05)


def test_pictures_of_several_sizes_need_one(tmp_path, fault_of):
    write_pictures(tmp_path, sizes=((6, 8), (9, 5)))
    data = open_dataset(Source(path=str(tmp_path), format="images")).train
    fault = fault_of(lambda: everything(data))
    assert fault.code == "E807" and "pixels, others" in fault.message
    assert fault.hint == "`size: [H, W]` scales all to one size"
    source = Source(path=str(tmp_path), format="images", size=(4, 4))
    assert everything(open_dataset(source).train)["image"].shape == (6, 3, 4, 4)


def test_a_corrupt_picture_is_told_by_name(tmp_path, fault_of):
    write_pictures(tmp_path)
    broken = tmp_path / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    data = open_dataset(Source(path=str(tmp_path), format="images")).train
    fault = fault_of(lambda: everything(data))
    assert fault.code == "E803" and "dog/1.png" in fault.message


def test_folders_without_pictures(tmp_path, fault_of):
    (tmp_path / "cat").mkdir()
    opened = lambda: open_dataset(Source(path=str(tmp_path), format="images"))  # noqa: E731
    fault = fault_of(opened)
    assert fault.code == "E807" and "no pictures" in fault.message and "cats/1.jpg" in fault.hint
    (tmp_path / "a.txt").write_text("x")
    file = Source(path=str(tmp_path / "a.txt"), format="images")
    assert "not a folder of pictures" in fault_of(lambda: open_dataset(file)).message


# ---------------------------------------------------------------- text


def test_text_windows(tmp_path):
    text = "the quick brown fox\njumps over the lazy dog — ünïcode\n" * 20
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = open_dataset(Source(path="a.txt", length=7), tmp_path)
    alphabet = "".join(data.train.fields["text"].classes)
    assert alphabet == "".join(sorted(set(text)))
    batch = everything(data.train)
    assert batch["text"].shape[1] == 7 and batch["text"].dtype == np.int32
    found = "".join(alphabet[code] for code in batch["text"].reshape(-1))
    assert text.startswith(found) and len(found) > 0.9 * len(text) - 8
    np.testing.assert_array_equal(batch["text"].reshape(-1)[1:], batch["next"].reshape(-1)[:-1])
    held = everything(data.held_out)
    first = "".join(alphabet[code] for code in held["text"][0])
    assert first == text[7 * len(data.train) : 7 * len(data.train) + 7]
    again = data.hold_out(0.25).parts
    last = again["validate"].take(np.arange(len(again["validate"])))["text"]
    np.testing.assert_array_equal(last, batch["text"][-len(last) :])


def test_the_python_docs_have_the_same_alphabet_always():
    data = open_dataset("python_docs")
    assert len(data.train.fields["text"].classes) == 96
    assert len(data.train) > 5 * len(data.held_out) > 0
    batch = data.train.take(np.arange(50))
    alphabet = data.train.fields["text"].classes
    text = "".join(alphabet[code] for code in batch["text"].reshape(-1))
    assert "assert" in text and "statement" in text
    small = open_dataset(Source(source="python_docs", limit=10, length=32))
    assert (len(small.train), len(small.held_out)) == (10, 10)


def test_texts_that_are_too_short_or_not_text(tmp_path, fault_of):
    (tmp_path / "a.txt").write_text("")
    assert "is empty" in fault_of(lambda: open_dataset("a.txt", tmp_path)).message
    (tmp_path / "a.txt").write_text("short")
    fault = fault_of(lambda: open_dataset("a.txt", tmp_path))
    assert fault.code == "E807" and fault.hint == "give a smaller `length`"
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    assert fault_of(lambda: open_dataset("a.txt", tmp_path)).code == "E803"


# ---------------------------------------------------------------- Python objects


class Items:
    """Items and a length, but no iterator, as PyTorch's sets are."""

    def __init__(self, items):
        self._items = items

    def __len__(self):
        return len(self._items)

    def __getitem__(self, number):
        return self._items[number]


def test_sequences_of_examples(fault_of):
    pairs = [(np.full((2, 2), i, np.float32), i % 3) for i in range(10)]
    data = open_dataset(Items(pairs)).train
    batch = data.take(np.array([4, 1]))
    assert batch["x"][:, 0, 0].tolist() == [4, 1] and batch["y"].tolist() == [1, 1]
    assert data.column("y").tolist() == [i % 3 for i in range(10)]
    tables = open_dataset(Items([{"a": i, "b": [i, i]} for i in range(4)])).train
    assert everything(tables)["b"].tolist() == [[i, i] for i in range(4)]
    assert data.fingerprint != open_dataset(Items(pairs[:9])).train.fingerprint
    assert fault_of(lambda: open_dataset(Items([]))).code == "E807"
    fault = fault_of(lambda: open_dataset(Items(["text"])))
    assert fault.message == "example 0 of the data is a str"
    ragged = open_dataset(Items([{"x": [1]}, {"x": [1, 2]}])).train
    assert "others are (1,)" in fault_of(lambda: everything(ragged)).message


def test_iterables_are_batches_and_no_sets(fault_of):
    for what in ([{"x": [1]}], iter([]), 3):
        assert not is_examples(what)
        assert "is not a set of examples" in fault_of(lambda w=what: open_dataset(w)).message
    for what in ("digits", {"x": [1]}, Items([]), open_dataset("digits").train):
        assert is_examples(what)
