"""metrics.csv and TensorBoard's event files, read back by independent code."""

import struct

import pytest
from tilth.runtime.faults import RuntimeFault
from tilth.runtime.train import events
from tilth.runtime.train.events import EventWriter, crc32c, frame
from tilth.runtime.train.logging import MetricsLog, read_metrics


def slow_crc32c(data):
    """Bit by bit, by polynomial division of the reflected message."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            top = (crc ^ (byte >> bit)) & 1
            crc = (crc >> 1) ^ (0x82F63B78 if top else 0)
    return crc ^ 0xFFFFFFFF


def unmask(masked):
    turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17) | (turned << 15) & 0xFFFFFFFF


def frames(data):
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert unmask(struct.unpack_from("<I", data, at + 8)[0]) == slow_crc32c(data[at : at + 8])
        message = data[at + 12 : at + 12 + length]
        check = struct.unpack_from("<I", data, at + 12 + length)[0]
        assert unmask(check) == slow_crc32c(message)
        yield message
        at += 16 + length


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """(number, value) of a protocol buffer's fields; blocks stay bytes."""
    at, found = 0, []
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        elif kind == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            assert kind == 2
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        found.append((number, value))
    return found


def scalars(path):
    found = []
    for message in frames(path.read_bytes()):
        event = dict(fields(message))
        for number, value in fields(event.get(5, b"")):
            assert number == 1
            point = dict(fields(value))
            found.append((event.get(2, 0), point[1].decode(), point[2]))
    return found


def test_the_checksum_is_crc_32c():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the CRC catalogue
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert slow_crc32c(b"123456789") == 0xE3069283


def test_a_frame_starts_as_in_every_event_file():
    # Length 24 and its masked checksum, as TensorFlow writes them.
    assert frame(bytes(24))[:12] == bytes.fromhex("1800000000000000a37f4b22")


def test_scalars_read_back(tmp_path):
    writer = EventWriter(tmp_path)
    writer.scalars(0, {"train/loss": 2.5})
    writer.scalars(300, {"train/loss": 0.125, "train/accuracy": 0.75})
    writer.scalars(2**40, {"train/loss": 1e300})
    writer.close()
    assert writer.path.name.startswith("events.out.tfevents.")
    first = dict(fields(next(frames(writer.path.read_bytes()))))
    assert first[3] == b"brain.Event:2" and 1.7e9 < first[1] < 4e9
    assert scalars(writer.path) == [
        (0, "train/loss", 2.5),
        (300, "train/loss", 0.125),
        (300, "train/accuracy", 0.75),
        (2**40, "train/loss", float("inf")),
    ]


def test_event_messages_are_protocol_buffers_to_the_library(tmp_path):
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="event.proto", syntax="proto3")

    def message(name, *entries):
        made = file.message_type.add(name=name)
        for field, number, kind, label, of in entries:
            made.field.add(name=field, number=number, type=kind, label=label, type_name=of)

    message("Value", ("tag", 1, 9, 1, None), ("simple_value", 2, 2, 1, None))
    message("Summary", ("value", 1, 11, 3, ".Value"))
    message("SessionLog", ("status", 1, 5, 1, None))
    message(
        "Event",
        ("wall_time", 1, 1, 1, None),
        ("step", 2, 3, 1, None),
        ("file_version", 3, 9, 1, None),
        ("summary", 5, 11, 1, ".Summary"),
        ("session_log", 7, 11, 1, ".SessionLog"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    Event = message_factory.GetMessageClass(pool.FindMessageTypeByName("Event"))
    writer = EventWriter(tmp_path, resume_step=7)
    writer.scalars(8, {"train/loss": 0.5})
    writer.close()
    version, session, point = (Event.FromString(data) for data in frames(writer.path.read_bytes()))
    assert version.file_version == "brain.Event:2"
    assert (session.step, session.session_log.status) == (8, 1)
    assert point.step == 8 and point.summary.value[0].tag == "train/loss"
    assert point.summary.value[0].simple_value == 0.5


def rows(path):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(path)]


def test_rows_by_part(tmp_path):
    with MetricsLog(tmp_path / "run", ["loss", "accuracy"]) as log:
        log.write(10, 0.5, "train", {"loss": 0.1})
        log.write(20, 1, "validate", {"loss": 1 / 3, "accuracy": 1.0})
    text = (tmp_path / "run" / "metrics.csv").read_text()
    assert text.splitlines()[0] == "step,epoch,part,seconds,loss,accuracy"
    assert rows(tmp_path / "run" / "metrics.csv") == [
        {"step": "10", "epoch": "0.5", "part": "train", "loss": "0.1"},
        {
            "step": "20",
            "epoch": "1",
            "part": "validate",
            "loss": "0.3333333333333333",
            "accuracy": "1",
        },
    ]


def test_new_metrics_get_columns(tmp_path):
    with MetricsLog(tmp_path, ["loss"]) as log:
        log.write(1, 1, "train", {"loss": 0.5})
        log.write(1, 1, "validate", {"loss": 0.25, "accuracy": 0.75})
        log.write(2, 2, "train", {"loss": 0.125, "lr": 0.1})
    found = rows(tmp_path / "metrics.csv")
    assert found[0] == {"step": "1", "epoch": "1", "part": "train", "loss": "0.5"}
    assert found[1]["accuracy"] == "0.75" and found[2]["lr"] == "0.1"


def test_a_resumed_log_drops_steps_that_are_made_again(tmp_path):
    with MetricsLog(tmp_path, ["loss"]) as log:
        for step in range(5):
            log.write(step, step / 5, "train", {"loss": float(step)})
    with (tmp_path / "metrics.csv").open("a") as stream:
        stream.write("5,1,tra")  # killed in the middle of a line
    with MetricsLog(tmp_path, ["loss", "lr"], resume_step=2) as log:
        log.write(3, 0.6, "train", {"loss": 3.5, "lr": 0.1})
    found = rows(tmp_path / "metrics.csv")
    assert [(row["step"], row["loss"]) for row in found] == [
        ("0", "0"), ("1", "1"), ("2", "2"), ("3", "3.5"),
    ]  # fmt: skip
    assert found[-1]["lr"] == "0.1"
    times = [float(row["seconds"]) for row in read_metrics(tmp_path / "metrics.csv")]
    assert times == sorted(times)
    files = sorted(tmp_path.glob("events*"), key=lambda path: path.suffix)
    assert len(files) == 2
    sessions = [dict(fields(m)) for m in frames(files[1].read_bytes())]
    assert sessions[1][2] == 3 and fields(sessions[1][7]) == [(1, 1)]


def test_a_new_run_starts_the_table_anew(tmp_path):
    for value in (1.0, 2.0):
        with MetricsLog(tmp_path, ["loss"]) as log:
            log.write(1, 1, "train", {"loss": value})
    assert [row["loss"] for row in rows(tmp_path / "metrics.csv")] == ["2"]


def test_faults(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RuntimeFault) as caught:
        MetricsLog(tmp_path / "file", ["loss"])
    assert caught.value.code == "E806"
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    for name in ("none.csv", "metrics.csv"):
        with pytest.raises(RuntimeFault) as caught:
            read_metrics(tmp_path / name)
        assert caught.value.code == "E803"

    def full(self, message):
        raise OSError(28, "No space left on device")

    log = MetricsLog(tmp_path / "run", ["loss"])
    monkeypatch.setattr(events.EventWriter, "_write", full)
    with pytest.raises(RuntimeFault) as caught:
        log.write(1, 1, "train", {"loss": 1.0})
    assert caught.value.code == "E806" and "no space left" in caught.value.message
