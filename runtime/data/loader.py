"""Batches of a set, made in background threads while the model computes.

What a batch holds depends on (seed, epoch, its position) alone, so training that is taken up again
at any batch goes on with the same bits, with any number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, repeat
from typing import Any, Protocol, TypeVar

import numpy as np

from ..faults import RuntimeFault
from .dataset import Dataset
from .order import balanced, shuffled

Batch = dict[str, np.ndarray]
T = TypeVar("T")


class Change(Protocol):
    """Something done to a batch, such as augmentation (see ``augment.py``)."""

    def __call__(self, batch: Batch, examples: np.ndarray, seed: int, epoch: int) -> Batch:
        """The changed batch; ``examples`` are the numbers of its examples."""
        ...


class Loader:
    """Batches of a set by epoch.

    Parameters
    ----------
    dataset
        The examples.
    batch
        Examples a batch.
    seed
        Of the order and of what ``change`` draws.
    shuffle
        Whether each epoch has its own order.
    drop_last
        Whether an incomplete batch at the end is left out.
    balance
        A field of labels: examples are drawn with replacement, each class equally often.
    change
        Done to each batch.
    ahead
        Batches made in advance; 0 makes each when it is asked for.
    threads
        Threads that make them.

    Raises
    ------
    RuntimeFault
        E807 when there is not one batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        balance: str | None = None,
        change: Change | None = None,
        ahead: int = 2,
        threads: int = 2,
    ) -> None:
        self.dataset, self.batch, self.seed = dataset, batch, seed
        self._shuffle, self._drop_last, self._change = shuffle, drop_last, change
        self._labels = None if balance is None else dataset.column(balance)
        self._ahead, self._threads = ahead, threads
        if len(self) == 0:
            found = f"{len(dataset)} examples are fewer than a batch of {batch}"
            raise RuntimeFault("E807", found if len(dataset) else "the data has no examples",
                               "give a smaller `batch`" if len(dataset) else None)  # fmt: skip

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (rest > 0 and not self._drop_last)

    @property
    def examples(self) -> int:
        """Examples an epoch."""
        return min(len(self.dataset), len(self) * self.batch)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the ``start``-th on; each is the caller's own.

        Closing the iterator stops the background threads. A fault while a batch is made is raised
        where that batch would have come.
        """
        order = self.order(number)
        jobs = (
            (order[i * self.batch : (i + 1) * self.batch], number) for i in range(start, len(self))
        )
        yield from in_background(self._make, jobs, self._ahead, self._threads)

    def order(self, number: int) -> np.ndarray:
        """The numbers of all examples in the order of an epoch."""
        if self._labels is not None:
            return balanced(self._labels, self.seed, number)
        count = len(self.dataset)
        return shuffled(count, self.seed, number) if self._shuffle else np.arange(count)

    def _make(self, job: tuple[np.ndarray, int]) -> Batch:
        examples, epoch = job
        made = self.dataset.take(examples)
        return made if self._change is None else self._change(made, examples, self.seed, epoch)


class IterableLoader:
    """Batches from a Python iterable of dictionaries of arrays.

    The iterable is gone through once an epoch; a function is called with the epoch's number and
    returns an iterable. When training is taken up again inside an epoch, the batches before are
    passed over; so it is bit-identical as far as the iterable repeats itself.
    """

    def __init__(
        self,
        source: Iterable[Mapping[str, Any]] | Callable[[int], Iterable[Mapping[str, Any]]],
        *,
        seed: int = 0,
        change: Change | None = None,
        ahead: int = 2,
    ) -> None:
        self._source, self._seed, self._change = source, seed, change
        self._ahead, self._used = ahead, False

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the ``start``-th on; see :meth:`Loader.epoch`."""
        opened = self._batches(number, start)
        # One thread goes through the iterable, since few are made for more.
        found = in_background(lambda items: next(items, None), repeat(opened), self._ahead, 1)
        made = 0
        try:
            while (batch := next(found)) is not None:
                made += 1
                yield batch
        finally:
            found.close()
        if made == 0 and start == 0:
            hint = "a generator ends after one epoch; give a list, or a function of the epoch"
            raise RuntimeFault("E807", f"the data has no batches in epoch {number}",
                               hint if self._used else None)  # fmt: skip
        self._used = True

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        for place, item in enumerate(islice(self._open(number), start, None), start):
            batch = _as_batch(item)
            if self._change is not None:
                # Examples have no numbers here; their places in the epoch stand in.
                count = max((len(array) for array in batch.values() if array.ndim), default=0)
                examples = np.arange(place * count, (place + 1) * count)
                batch = self._change(batch, examples, self._seed, number)
            yield batch

    def _open(self, number: int) -> Iterator[Mapping[str, Any]]:
        if isinstance(self._source, Iterable):
            return iter(self._source)
        return iter(self._source(number))


def in_background(
    make: Callable[[Any], T], jobs: Iterable[Any], ahead: int, threads: int
) -> Generator[T, None, None]:
    """``map(make, jobs)`` with up to ``ahead`` results made in advance, in order.

    ``jobs`` itself is gone through by the caller's thread.
    """
    if ahead == 0:
        yield from map(make, jobs)
        return
    todo, waiting = iter(jobs), deque[Future[T]]()
    pool = ThreadPoolExecutor(min(threads, ahead), "tilth-data")
    try:
        waiting.extend(pool.submit(make, job) for job in islice(todo, ahead))
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(make, job) for job in islice(todo, 1))
            yield done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_batch(item: Any) -> Batch:
    if not isinstance(item, Mapping) or not item:
        found = type(item).__name__
        message = f"the data gave a {found} where a dictionary of arrays by input name is needed"
        raise RuntimeFault("E807", message)
    batch = {str(name): np.asarray(array) for name, array in item.items()}
    counts = {name: len(array) for name, array in batch.items() if array.ndim}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise RuntimeFault("E807", f"the arrays of a batch differ in length: {shown}")
    return batch
