"""Tables of outcomes: from arrays, from ``P[s][a]`` dictionaries, from Gymnasium by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..faults import RuntimeFault, suggestion, unreadable
from ..weights import read_arrays

FIELDS = ("probability", "next", "reward", "done")
"""The arrays of a table, each ``[states, actions, outcomes]``."""
GYM = "gym:"
EXTRA = "pip install 'tilth[gym]'"


def read_table(value: Any) -> dict[str, np.ndarray]:
    """A table from what a user gives.

    ``gym:NAME``, an ``.npz`` file with the arrays of ``FIELDS``, a ``.json`` file or a mapping
    ``P[s][a] = [(probability, next, reward, done), ...]``, or an environment that has ``P``.
    """
    if isinstance(value, str) and value.startswith(GYM):
        return from_outcomes(_outcomes_of(environment(value.removeprefix(GYM)), value))
    if isinstance(value, (str, Path)):
        return _from_file(str(value))
    if isinstance(value, Mapping) and set(value) >= set(FIELDS):
        return {name: np.asarray(value[name]) for name in FIELDS}
    if isinstance(value, Mapping):
        return from_outcomes(value)
    return from_outcomes(_outcomes_of(value, type(value).__name__))


def environment(name: str) -> Any:
    """A Gymnasium environment; where a version is gone, the newest one there is."""
    try:
        import gymnasium
    except ImportError as missing:
        message = f"`{name}` is an environment of Gymnasium, which is not installed"
        raise RuntimeFault("E804", message, EXTRA) from missing
    base = name.rpartition("-v")[0] or name
    known = gymnasium.registry.values()
    versions = sorted(spec.version or 0 for spec in known if spec.name == base)
    if name not in gymnasium.registry and versions:
        name = f"{base}-v{versions[-1]}"
    if name not in gymnasium.registry:
        hint = suggestion(name, [str(other) for other in gymnasium.registry])
        raise RuntimeFault("E803", f"Gymnasium has no environment `{name}`", hint)
    try:
        return gymnasium.make(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise RuntimeFault("E803", f"Gymnasium cannot make `{name}`: {error}") from error


def _outcomes_of(found: Any, name: str) -> Mapping[int, Any]:
    table = getattr(getattr(found, "unwrapped", found), "P", None)
    if not isinstance(table, Mapping):
        message = f"`{name}` has no table `P[s][a]`"
        raise RuntimeFault("E802", message, "only the toy-text environments have one")
    return table


def from_outcomes(table: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """Arrays from ``P[s][a] = [(probability, next, reward, done), ...]``, filled up with zeros.

    Keys count from 0, as numbers or texts.
    """
    rows = {(int(s), int(a)): list(row) for s, of in table.items() for a, row in of.items()}
    if not rows:
        raise RuntimeFault("E802", "the table holds no state")
    states, actions = (1 + max(key[place] for key in rows) for place in (0, 1))
    missing = [(s, a) for s in range(states) for a in range(actions) if (s, a) not in rows]
    if missing:
        s, a = missing[0]
        message = f"the table has no outcomes for state {s}, action {a}"
        raise RuntimeFault("E802", message, "list every action of every state")
    most = max(map(len, rows.values()))
    made: dict[str, np.ndarray] = {name: np.zeros((states, actions, most)) for name in FIELDS}
    for (s, a), row in rows.items():
        for place, outcome in enumerate(row):
            _require_outcome(outcome, s, a, states)
            for name, number in zip(FIELDS, outcome, strict=True):
                made[name][s, a, place] = number
    made["next"] = made["next"].astype(np.int32)
    return made


def _require_outcome(outcome: Sequence[Any], s: int, a: int, states: int) -> None:
    where = f"state {s}, action {a}"
    if len(outcome) != len(FIELDS):
        message = f"an outcome of {where} has {len(outcome)} parts"
        raise RuntimeFault("E802", message, "an outcome is (probability, next, reward, done)")
    if not 0 <= outcome[1] < states:
        message = f"an outcome of {where} leads to the state {outcome[1]}"
        raise RuntimeFault("E802", message, f"states are 0 to {states - 1}")


def _from_file(path: str) -> dict[str, np.ndarray]:
    if path.lower().endswith(".json"):
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error
        try:
            return read_table(found)
        except (TypeError, ValueError, AttributeError) as error:
            message = f"`{path}` is no table of outcomes"
            hint = 'write {"0": {"0": [[probability, next, reward, done]]}}'
            raise RuntimeFault("E802", message, hint) from error
    arrays = read_arrays(path)
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        message = f"`{path}` lacks the arrays {', '.join(missing)}"
        raise RuntimeFault("E802", message, f"a table has {', '.join(FIELDS)}")
    return {name: arrays[name] for name in FIELDS}
