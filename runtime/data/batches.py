"""From data to the batches of a run: opened, fitted to the model, augmented, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..faults import RuntimeFault
from ..inputs import Declared
from .augment import Augmentation, Step, fitted
from .dataset import Dataset
from .feed import checked, feed
from .loader import IterableLoader, Loader
from .sources import Data, open_dataset


@dataclass(frozen=True)
class Batches:
    """What a run trains on and is validated on.

    ``fingerprint`` tells the data apart (empty for an iterable, which has none), ``classes`` are
    the names of classes by input.
    """

    train: Loader | IterableLoader
    held_out: Loader | None
    fingerprint: str
    classes: Mapping[str, tuple[str, ...]]


def open_batches(
    what: Any,
    declared: Mapping[str, Declared],
    *,
    batch: int,
    held_batch: int | None = None,
    folder: str | os.PathLike[str] = ".",
    fraction: float | None = None,
    held_out: Any = None,
    augment: Sequence[Step] = (),
    seed: int = 0,
    shuffle: bool = True,
    balance: str | None = None,
) -> Batches:
    """Batches that fill the declared inputs, of training and of held-out examples.

    Parameters
    ----------
    what
        As for :func:`open_dataset`; or an iterable of batches, or a function of the epoch that
        gives one (see :class:`IterableLoader`).
    declared
        What the model and its objective declare, by name.
    batch, held_batch
        Examples a batch while training (a rest at the end of an epoch is left out), and while
        validating (as many, unless given; the rest is kept).
    folder
        What relative paths are relative to.
    fraction
        The part of the training examples that is held out; ``held_out`` is data of its own, for
        which the same holds as for ``what``. Without both it is the data's own part for it.
    augment
        Changes of the training examples, in order.
    seed, shuffle, balance
        As for :class:`Loader`; ``balance`` is an input of labels.

    Raises
    ------
    RuntimeFault
        E802, E803 and E807 for data that cannot be read, used, or does not fit.
    """
    if _is_stream(what):
        held = None if held_out is None else _plain(held_out, declared, held_batch or batch, folder)
        if augment or balance or fraction:
            message = "an iterable of batches is not augmented, balanced or split"
            raise RuntimeFault("E807", message, "give a sequence of examples instead")
        return Batches(IterableLoader(what, change=checked(declared)), held, "", {})
    data = open_dataset(what, folder)
    if fraction is not None:
        data = data.hold_out(fraction)
    chain = fitted(augment, feed(data.train, _loosened(declared))) if augment else None
    train = feed(data.train, declared, chain)
    loader = Loader(
        train, batch, seed=seed, shuffle=shuffle, drop_last=True, balance=balance, change=chain
    )
    other = _held_out(data, held_out, folder)
    held = None if other is None else _held(other, declared, held_batch or batch, chain)
    classes = {name: field.classes for name, field in train.fields.items() if field.classes}
    return Batches(loader, held, train.fingerprint, classes)


def _held_out(data: Data, given: Any, folder: str | os.PathLike[str]) -> Dataset | None:
    if given is None:
        return data.held_out
    opened = open_dataset(given, folder)
    return opened.held_out or opened.train


def _held(
    dataset: Dataset, declared: Mapping[str, Declared], batch: int, chain: Augmentation | None
) -> Loader:
    still = None if chain is None else chain.evaluating
    return Loader(feed(dataset, declared, still), batch, shuffle=False, change=still)


def _plain(
    given: Any, declared: Mapping[str, Declared], batch: int, folder: str | os.PathLike[str]
) -> Loader:
    opened = open_dataset(given, folder)
    return _held(opened.held_out or opened.train, declared, batch, None)


def _loosened(declared: Mapping[str, Declared]) -> dict[str, Declared]:
    """The same with the sizes of pictures open, which a change may bring about."""
    return {
        name: Declared(d.dtype, (*d.shape[:2], "H", "W")) if len(d.shape) == 4 else d
        for name, d in declared.items()
    }


def _is_stream(what: Any) -> bool:
    if isinstance(what, (str, os.PathLike, Mapping, Data)) or hasattr(what, "fields"):
        return False
    sequence = hasattr(what, "__getitem__") and hasattr(what, "__len__")
    return not sequence and isinstance(what, (Iterable, Callable))
