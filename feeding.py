"""The data of a training run: opened, fitted to the inputs, held out, cut into batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .compiler.ir.graph import Graph, Node, Value
from .compiler.ir.types import DTYPES
from .program import Program
from .proof import sizes_at
from .runtime.data import Data, IterableLoader, Loader, Source, open_dataset
from .runtime.data.augment import Augmentation, Step, fitted
from .runtime.data.dataset import Dataset, require_labels
from .runtime.data.feed import checked, feed
from .runtime.faults import RuntimeFault, suggestion
from .runtime.inputs import Declared
from .runtime.train.loop import Batches, Classes
from .spec.elaborate.objectives import Training
from .spec.sections import Train
from .spec.sections_data import DataSource

BATCH = 32
"""Examples of a batch where the spec does not say."""

CLASSES = ("cross_entropy", "nll", "softmax_focal", "multi_margin", "crammer_singer")
"""Losses of scores and whole-number labels."""

MOST_CLASSES = 1000
"""More classes than this have no table of confusions."""


@dataclass(frozen=True)
class Feeding:
    """Batches to train and to validate on.

    ``batch`` and ``batches`` are examples a batch and batches an epoch, where they are known;
    ``sizes`` are open sizes that the data tells, the batch excepted; ``fingerprint`` is the same
    for the same data in the same batches; ``classes`` are names of classes by input.
    """

    train: Batches
    held_out: Batches | None
    batch: int | None
    batches: int | None
    sizes: Mapping[str, int]
    fingerprint: str
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def feeding(
    program: Program, training: Training, section: Train, data: Any, validate: Any
) -> Feeding:
    """The batches of a run.

    ``data`` is anything that :func:`runtime.data.open_dataset` takes, a name under the spec's
    ``data:``, or an iterable of batches (dictionaries of arrays by input name); the spec's own data
    where it is ``None``. ``validate`` likewise.
    """
    declared = _declared(training.graph)
    what = section.data if data is None else data
    if what is None:
        hint = "name it: `data: digits` under `train:`, or `--data FILE`"
        raise RuntimeFault("E807", "there is no data to train on", hint)
    if not _is_dataset(what):
        return _from_batches(what, validate, declared, section)
    opened = _opened(program, what)
    held = _held_out(program, opened, section, validate)
    if held is not None and held[0] is not None:
        opened = held[0]
    held_out = held[1] if held is not None else None
    chain = _chain(section, opened.train, declared)
    batch = section.batch or min(BATCH, len(opened.train))
    fed = feed(opened.train, declared, chain)
    _require_classes(training.graph, fed)
    loader = Loader(
        fed, batch, seed=section.seed, shuffle=section.shuffle,
        drop_last=section.shuffle and len(fed) >= batch, change=chain,
    )  # fmt: skip
    others = None
    if held_out is not None:
        steady = chain.evaluating if chain is not None else None
        fed_too = feed(held_out, declared, steady)
        _require_classes(training.graph, fed_too)
        size = section.validate.batch if section.validate is not None else None
        others = Loader(fed_too, size or batch, shuffle=False, change=steady)
    sizes = _sizes(program, training.graph, fed)
    print_of = f"{fed.fingerprint}/{batch}/{section.seed}/{section.shuffle}"
    named = {name: field.classes for name, field in fed.fields.items() if field.classes}
    return Feeding(loader, others, batch, len(loader), sizes, print_of, named)


# ---------------------------------------------------------------- opening


def _is_dataset(what: Any) -> bool:
    """Whether something is data by examples, rather than batches that are ready."""
    if isinstance(what, (str, os.PathLike, Data, Source)):
        return True
    return isinstance(what, Mapping) or hasattr(what, "take")


def _opened(program: Program, what: Any) -> Data:
    entries = program.model.envelope.data
    if isinstance(what, str) and what in entries:
        file = program.model.envelope.document.file
        return open_dataset(_source(entries[what], what), Path(file).parent)
    try:
        return open_dataset(what)
    except RuntimeFault as fault:
        name = isinstance(what, str) and os.sep not in what and not Path(what).suffix
        if fault.code == "E803" and name:
            hint = suggestion(what, [*entries, "digits"])
            raise RuntimeFault("E807", f"there is no data `{what}`", hint) from fault
        raise


def _source(entry: DataSource, name: str) -> Source:
    if entry.source is None and entry.path is None:
        message = f"the data `{name}` is a table of numbers, not examples to train on"
        raise RuntimeFault("E807", message)
    names = ("source", "path", "format", "columns", "header", "delimiter", "split", "seed",
             "limit", "size", "mean", "std", "length")  # fmt: skip
    return Source(**{name: getattr(entry, name) for name in names})


def _held_out(
    program: Program, data: Data, section: Train, validate: Any
) -> tuple[Data | None, Dataset] | None:
    """Perhaps the data anew without what is held out, and the part to validate on."""
    rule = section.validate
    if validate is None and rule is not None and rule.data is not None:
        validate = rule.data
    if isinstance(validate, str) and validate in data.parts:
        return None, data.parts[validate]
    if validate is not None:
        other = _opened(program, validate)
        return None, other.held_out or other.train
    if rule is not None and rule.fraction is not None:
        parts = data.hold_out(rule.fraction, section.seed)
        return parts, parts.parts["validate"]
    return None if data.held_out is None else (None, data.held_out)


def _from_batches(
    what: Any, validate: Any, declared: Mapping[str, Declared], section: Train
) -> Feeding:
    if not _gives_batches(what):
        message = f"`{type(what).__name__}` is no data to train on"
        hint = "give arrays by input name, a file, or an iterable of batches"
        raise RuntimeFault("E807", message, hint)
    change = checked(declared)
    held = None if validate is None else IterableLoader(validate, change=change)
    count = len(what) if hasattr(what, "__len__") else None
    return Feeding(IterableLoader(what, change=change), held, None, count, {}, "iterable")


def _gives_batches(what: object) -> bool:
    return isinstance(what, Iterable) or callable(what)


# ---------------------------------------------------------------- fitting


def _declared(graph: Graph) -> dict[str, Declared]:
    """The inputs of training, by name."""
    found = {}
    for index in graph.inputs:
        node = graph.node(index)
        if node.name != "key":
            shape = tuple(d if isinstance(d, int) else str(d) for d in node.type.shape)
            found[node.name] = Declared(DTYPES[node.type.dtype], shape)
    return found


def _chain(
    section: Train, dataset: Dataset, declared: Mapping[str, Declared]
) -> Augmentation | None:
    """The changes of ``augment``, fitted to the examples to train on."""
    if not section.augment:
        return None
    # Before the changes, pictures may have another size.
    loose = {
        name: Declared(want.dtype, tuple(map(str, want.shape))) if len(want.shape) == 4 else want
        for name, want in declared.items()
    }
    steps = [Step(call.name, call.settings) for call in section.augment]
    return fitted(steps, feed(dataset, loose))


def _require_classes(graph: Graph, dataset: Dataset) -> None:
    """E807 unless labels are classes that the model has."""
    for node, _, label, classes in _class_losses(graph):
        name = graph.node(label.node).name
        if graph.type_of(label).is_float or name not in dataset.fields:
            continue
        ignored = node.attrs.get("ignore")
        if ignored is None or not np.any(dataset.column(name) == ignored):
            require_labels(dataset, name, classes)


def _class_losses(graph: Graph) -> Iterator[tuple[Node, Value, Value, int]]:
    """Losses of classes: the node, its scores, the input that holds labels, how many classes."""
    for index, node in graph.of_op(*CLASSES):
        scores, label = graph.operands(index)[:2]
        classes = graph.type_of(scores).shape[_axis(node)]
        if graph.node(label.node).op == "input" and isinstance(classes, int):
            yield node, scores, label, classes


def _axis(node: Node) -> int:
    return int(node.attrs.get("axis", 1))  # type: ignore[arg-type]


def confusable(graph: Graph, feeding: Feeding) -> tuple[Value, Classes] | None:
    """The scores whose confusions are counted while validating, and what they are compared with.

    They are those of the first loss of classes; ``None`` where there is none, or more than
    ``MOST_CLASSES``.
    """
    for node, scores, label, classes in _class_losses(graph):
        if classes <= MOST_CLASSES:
            name = graph.node(label.node).name
            names = feeding.classes.get(name) or tuple(map(str, range(classes)))
            if len(names) == classes:
                return scores, Classes(name, _axis(node), names)
    return None


def _sizes(program: Program, graph: Graph, dataset: Dataset) -> dict[str, int]:
    """Open sizes that the data's fields tell."""
    names = {graph.node(index).name for index in graph.inputs}
    shapes = {n: ("N", *field.shape) for n, field in dataset.fields.items() if n in names}
    found = sizes_at(graph, shapes)
    return {name: size for name, size in found.items() if name != "N"}
