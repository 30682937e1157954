"""What a run shows: plain lines, and a live one on a terminal."""

import io
import re

import pytest
from tilth.runtime.train.progress import Display, duration


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(display, clock, epochs, steps, seconds):
    with display:
        for epoch in range(epochs):
            for step in range(steps):
                clock.now += seconds
                display.step(epoch, step + 1, 32, {"loss": 1 / (1 + epoch)})
            display.epoch(epoch, {"loss": 1 / (1 + epoch), "accuracy": 0.98765})


def test_a_line_for_each_epoch_where_there_is_no_terminal():
    clock, stream = Clock(), io.StringIO()
    run(Display(3, 10, "images", stream, clock=clock), clock, 3, 10, 0.5)
    assert stream.getvalue().splitlines() == [
        "epoch 1/3  loss 1  accuracy 0.9877  64 images/s  10 s left",
        "epoch 2/3  loss 0.5  accuracy 0.9877  64 images/s  5 s left",
        "epoch 3/3  loss 0.3333  accuracy 0.9877  64 images/s",
    ]


def test_long_epochs_say_where_they_are():
    clock, stream = Clock(), io.StringIO()
    run(Display(1, 10, stream=stream, clock=clock), clock, 1, 10, 11)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "epoch 1/1  loss 1  3 examples/s  step 3/10  1:17 left"
    assert [re.search(r"step (\d+)/10", line)[1] for line in lines[:-1]] == ["3", "6", "9"]
    clock, stream = Clock(), io.StringIO()
    run(Display(1, None, stream=stream, clock=clock), clock, 1, 4, 11)
    assert stream.getvalue().splitlines()[0] == "epoch 1/1  loss 1  3 examples/s  step 3"


def test_a_resumed_run_counts_its_own_steps_for_the_time_left():
    clock, stream = Clock(), io.StringIO()
    with Display(10, 10, stream=stream, clock=clock) as display:
        for step in range(5, 10):
            clock.now += 1
            display.step(7, step + 1, 1, {})
        display.epoch(7, {})
    assert stream.getvalue().splitlines() == ["epoch 8/10  1 examples/s  20 s left"]


@pytest.mark.parametrize("terminal", [False, True])
def test_compiling_counts_neither_for_the_rate_nor_for_the_time_left(terminal):
    clock, stream = Clock(), io.StringIO()
    with Display(3, 10, "images", stream, terminal, clock) as display:
        for step in range(10):
            # Full batches, the last one and validation, each of a shape of its own.
            compiling = {0: 40.0, 9: 20.0}.get(step, 0.0)
            clock.now += compiling
            display.prepared(compiling)
            clock.now += 0.5
            display.step(0, step + 1, 32, {})
        clock.now += 7
        display.prepared(7)
        display.epoch(0, {})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "epoch 1/3  64 images/s  10 s left" in text


def test_validation_counts_for_the_time_left_alone():
    clock, stream = Clock(), io.StringIO()
    with Display(3, 10, "images", stream, clock=clock) as display:
        for epoch in range(3):
            for step in range(10):
                clock.now += 0.5
                display.step(epoch, step + 1, 32, {})
            clock.now += 5
            display.epoch(epoch, {})
    assert stream.getvalue().splitlines() == [
        "epoch 1/3  64 images/s  20 s left",
        "epoch 2/3  64 images/s  10 s left",
        "epoch 3/3  64 images/s",
    ]


def test_a_terminal_shows_the_time_left_within_an_epoch():
    clock, stream = Clock(), io.StringIO()
    with Display(2, 10, stream=stream, terminal=True, clock=clock) as display:
        clock.now += 0.5
        display.step(0, 1, 32, {})
        assert display._bar is not None
        display._bar._progress.refresh()
    assert "epoch 1/2  64 examples/s  10 s left" in stream.getvalue()


def test_the_rate_follows_a_change():
    clock, stream = Clock(), io.StringIO()
    display = Display(2, 1000, stream=stream, clock=clock)
    for step in range(200):
        clock.now += 1.0 if step < 100 else 0.1
        display.step(0, step, 10, {})
    display.epoch(0, {})
    rate = float(re.search(r"([\d.]+) examples/s", stream.getvalue().splitlines()[-1])[1])
    assert 20 < rate < 101


def test_a_terminal_has_a_live_line_and_lines_that_stay():
    clock, stream = Clock(), io.StringIO()
    run(Display(2, 3, "images", stream, terminal=True, clock=clock), clock, 2, 3, 0.25)
    text = stream.getvalue()
    assert "\x1b[?25l" in text and text.count("\x1b[?25h") == 1  # the cursor comes back
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    for line in ("epoch 1/2  loss 1  accuracy 0.9877", "epoch 2/2  loss 0.5  accuracy 0.9877"):
        assert line in plain


def test_markup_in_a_message_is_text():
    stream = io.StringIO()
    with Display(1, 1, stream=stream, terminal=True) as display:
        display.say("using [red]previous.safetensors[/red]")
    assert "[red]previous.safetensors[/red]" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (7385, "2:03:05")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
