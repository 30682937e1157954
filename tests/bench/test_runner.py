"""The runner on fake engines with a fake clock: turns, order, statistics."""

import pytest
from tilth.bench.runner import Schedule, Spread, fastest, measure, paired_ratio, spread


class Machine:
    """A clock that only calls and pauses move, and a log of who ran when."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.log.append("pause")

    def engine(self, name, seconds, first=0.0):
        """An engine whose call takes ``seconds``, the first of each turn ``first`` more."""

        def turn(calls):
            self.log.append((name, calls))
            taken = [seconds + (first if i == 0 else 0.0) for i in range(calls)]
            self.now += sum(taken)
            return taken

        return turn


def timed(machine, turns, schedule):
    return measure(turns, schedule, machine.clock, machine.sleep)


def test_the_first_call_of_a_turn_does_not_count():
    machine = Machine()
    turns = {"a": machine.engine("a", 0.01, first=5.0)}
    taken = timed(machine, turns, Schedule(rounds=4, seconds=0))
    assert taken == {"a": [0.01] * 4}


def test_turns_are_filled_with_calls():
    machine = Machine()
    turns = {name: machine.engine(name, s) for name, s in (("fast", 0.001), ("slow", 1.0))}
    timed(machine, turns, Schedule(rounds=1, seconds=0, turn_s=0.0205, most_calls=10))
    assert machine.log[2:] == ["pause", ("fast", 11), "pause", ("slow", 2)]


def test_engines_take_turns_in_rotating_order():
    machine = Machine()
    turns = {name: machine.engine(name, 1.0) for name in "abc"}
    timed(machine, turns, Schedule(rounds=4, seconds=0))
    order = "".join(entry[0] for entry in machine.log[3:] if entry != "pause")
    assert order == "abcbcacababc"


@pytest.mark.parametrize(
    ("rounds", "seconds", "expected"), [(3, 0.0, 3), (3, 20.0, 10), (30, 20.0, 30)]
)
def test_both_limits_are_reached(rounds, seconds, expected):
    machine = Machine()
    turns = {"a": machine.engine("a", 1.0)}
    schedule = Schedule(rounds, seconds, turn_s=0.5, pause_s=0.0)
    assert len(timed(machine, turns, schedule)["a"]) == expected


def test_one_slow_call_does_not_move_a_turn():
    machine = Machine()
    times = iter([1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 50.0])

    def turn(calls):
        return [next(times) for _ in range(calls)]

    taken = timed(machine, {"a": turn}, Schedule(1, 0.0, turn_s=3.0))
    assert taken == {"a": [1.0]}


def test_nothing_to_measure():
    assert measure({}, Schedule()) == {}


def test_the_fastest_choice():
    machine = Machine()
    turns = {name: machine.engine(name, s) for name, s in (("x", 0.03), ("y", 0.02), ("z", 0.05))}
    assert fastest(turns, Schedule(), machine.clock, machine.sleep) == "y"
    assert fastest({"only": lambda calls: pytest.fail("needs no trial")}, Schedule()) == "only"


def test_spread():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    assert Spread(1.0, 0.5, 2.0).scaled(1e3) == Spread(1000.0, 500.0, 2000.0)


def test_ratios_are_paired_by_round():
    # Both slow down together, so the ratio stays while the medians move.
    ours, theirs = [1.0, 10.0, 2.0], [2.0, 20.0, 4.0]
    assert paired_ratio(ours, theirs) == Spread(2.0, 2.0, 2.0)
