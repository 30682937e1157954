"""The sections about using a model: ``train``, ``solve`` and ``learn``.

Each section is a frozen dataclass and the tuple of keys that reads it. ``spans`` of a section has
the place of every value that the file gives, by field name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..compiler.ir.types import Span
from .calls import Call, call_of, chain_of, default_call
from .diagnostics import Label
from .kinds import (
    IDENTIFIER,
    Constant,
    Key,
    Kind,
    choice,
    flag,
    is_whole,
    list_of,
    located,
    mapped,
    mapping_of,
    name,
    number,
    one_of,
    record,
    source_text,
    text,
    whole,
)
from .section_calls import AUGMENTATIONS, CLIPS, EXPLORATION, OPTIMIZERS, SCHEDULES
from .source import SourceText
from .yaml_nodes import Context, Node, ScalarNode, describe

PATH = r"[A-Za-z_*][A-Za-z0-9_*]*(\.[A-Za-z0-9_*]+)*"
UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

SOLVERS = (
    "value_iteration",
    "gauss_seidel",
    "prioritised",
    "policy_iteration",
    "modified_policy_iteration",
    "linear_program",
)
LEARNERS = (
    "monte_carlo",
    "td0",
    "td_n",
    "td_lambda",
    "sarsa",
    "expected_sarsa",
    "q_learning",
    "double_q",
)


@dataclass(frozen=True)
class Objective:
    """One loss of alternating training: what it updates and for how many steps a round."""

    span: Span
    spans: Mapping[str, Span]
    loss: SourceText | None = None
    name: str | None = None
    over: tuple[Constant, ...] = ()
    steps: int = 1
    optimizer: Call | None = None
    schedule: tuple[Call, ...] = ()
    clip: Call | None = None


@dataclass(frozen=True)
class Validation:
    """Which data the metrics are computed on while training, and how often (in epochs)."""

    span: Span
    spans: Mapping[str, Span]
    data: str | None = None
    fraction: float | None = None
    every: int = 1
    batch: int | None = None


@dataclass(frozen=True)
class EarlyStop:
    """Stop when ``metric`` has not improved by ``min_delta`` for ``patience`` validations."""

    span: Span
    spans: Mapping[str, Span]
    metric: str = "loss"
    patience: int = 5
    mode: str = "min"
    min_delta: float = 0.0


@dataclass(frozen=True)
class Checkpointing:
    """How often (in epochs) to save, how many to keep, and by which metric to keep the best."""

    span: Span
    spans: Mapping[str, Span]
    every: int = 1
    keep: int = 1
    best: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Train:
    """The ``train`` section.

    Training ends after ``epochs`` or ``steps``, whichever comes first. Times in ``schedule`` are
    epochs; where only ``steps`` is given they are steps. ``memory`` is in bytes.
    """

    span: Span
    spans: Mapping[str, Span]
    data: str | None = None
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    accumulate: int = 1
    shuffle: bool = True
    balance: str | None = None
    seed: int = 0
    objective: SourceText | None = None
    objectives: tuple[Objective, ...] = ()
    optimizer: Call | None = None
    schedule: tuple[Call, ...] = ()
    clip: Call | None = None
    ema: float | None = None
    weight_decay_exclude: tuple[Constant, ...] = ()
    weight_decay_vectors: bool = False
    label_smoothing: float = 0.0
    metrics: Mapping[str, SourceText] | None = None
    validate: Validation | None = None
    early_stop: EarlyStop | None = None
    checkpoint: Checkpointing | None = None
    memory: int | None = None
    augment: tuple[Call, ...] = ()
    freeze: tuple[Constant, ...] = ()
    tbptt: int | None = None
    init: Mapping[str, Constant] | None = None


@dataclass(frozen=True)
class Solve:
    """The ``solve`` section: how a decision process is solved from its model.

    ``sweeps`` is the number of evaluation sweeps in modified policy iteration, ``evaluation`` how
    policy iteration evaluates. ``horizon`` is a number of steps after which the process ends;
    ``average`` asks for the reward a step in the long run.
    """

    span: Span
    spans: Mapping[str, Span]
    method: str = "value_iteration"
    tol: float = 1e-8
    gamma: float | None = None
    max_steps: int = 100_000
    sweeps: int = 5
    evaluation: str = "iterative"
    horizon: int | None = None
    average: bool = False


@dataclass(frozen=True)
class Learn:
    """The ``learn`` section: how a decision process is learned from episodes.

    ``lambda_`` is the trace decay of ``td_lambda``, ``n`` the steps of ``td_n``; ``max_steps``
    bounds an episode; ``schedule`` changes ``alpha`` over episodes. ``start`` are the indices of
    the state in which episodes start, any state without it.
    """

    span: Span
    spans: Mapping[str, Span]
    method: str = ""
    episodes: int = 1000
    max_steps: int = 1000
    alpha: float = 0.1
    gamma: float | None = None
    epsilon: float | None = None
    lambda_: float | None = None
    n: int | None = None
    seeds: tuple[int, ...] = (0,)
    explore: Call | None = None
    schedule: tuple[Call, ...] = ()
    start: tuple[int, ...] | None = None
    traces: str = "accumulating"
    visits: str = "every"
    importance: str | None = None


def size() -> Kind:
    """A size in memory, ``2GB`` or ``512MiB``; read as bytes."""
    expected = "a size such as 2GB or 512MiB"
    pattern = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(UNITS)})")

    def accepts(node: Node) -> bool:
        return isinstance(node, ScalarNode) and (is_whole(node) or isinstance(node.value, str))

    def convert(node: Node, what: str, context: Context) -> int | None:
        assert isinstance(node, ScalarNode)
        match = pattern.fullmatch(node.text)
        amount = node.value if isinstance(node.value, int) else None
        if match is not None:
            amount = int(float(match[1]) * UNITS[match[2]])
        if amount is not None and amount > 0:
            return amount
        found = f"found {describe(node)}"
        code = "E006" if amount is None else "E016"
        context.fault(code, f"`{what}` must be {expected}", node.span, found=found)
        return None

    schema = {"type": ["string", "integer"], "pattern": f"^{pattern.pattern}$", "minimum": 1}
    return Kind(expected, accepts, convert, schema)


def path(expected: str = "a weight path such as `layer1.0.conv1`") -> Kind:
    """A weight path; ``*`` stands for any part."""
    return located(name(PATH, expected))


def _clip() -> Kind:
    limit = mapped(
        number(0, above=True),
        lambda value, span: default_call(CLIPS, "norm", span, limit=value),
    )
    return one_of(limit, call_of(CLIPS))


def _one_or_more(item: Kind) -> Kind:
    return one_of(mapped(item, lambda value, span: (value,)), list_of(item, 1))


def _check_optimizer(call: Call | None, context: Context) -> None:
    if call is None or not call.settings.get("nesterov"):
        return
    if call.settings["momentum"] == 0 or call.settings["dampening"] != 0:
        message = "`nesterov` needs a momentum above 0 and no dampening"
        context.fault("E016", message, call.spans["nesterov"])


def _check_schedule(calls: tuple[Call, ...], context: Context) -> None:
    """A schedule that never ends must be the last."""
    rows = [call for call in calls if call.name != "linear_scaling"]
    for call, after in pairwise(rows):
        if call.settings.get("epochs") is None:
            labels = (Label(after.span, "this one would never begin"),)
            message = f"`{call.name}` has no end, so it must stand last"
            context.fault("E016", message, call.span, labels=labels)


def _check_objective(objective: Objective, spans: Mapping[str, Span], context: Context) -> None:
    _check_optimizer(objective.optimizer, context)
    _check_schedule(objective.schedule, context)


def _check_train(train: Train, spans: Mapping[str, Span], context: Context) -> None:
    _check_optimizer(train.optimizer, context)
    _check_schedule(train.schedule, context)
    names: dict[str, Span] = {}
    for objective in train.objectives:
        if objective.name is None:
            continue
        span = objective.spans["name"]
        if objective.name in names:
            labels = (Label(names[objective.name], "first given here"),)
            message = f"two objectives are named `{objective.name}`"
            context.fault("E016", message, span, labels=labels)
        names.setdefault(objective.name, span)
    if train.validate is not None and {"data", "fraction"} <= train.validate.spans.keys():
        message = "`train.validate` takes `data` or `fraction`, not both"
        labels = (Label(train.validate.spans["data"], "`data` given here"),)
        context.fault("E016", message, train.validate.spans["fraction"], labels=labels)
    _check_known_metrics(train, context)


def _check_known_metrics(train: Train, context: Context) -> None:
    if "metrics" in train.spans and context.faulty(train.spans["metrics"]):
        return
    known = {"loss", *(train.metrics or {})}
    uses = []
    if train.early_stop is not None and "metric" in train.early_stop.spans:
        uses.append((train.early_stop.metric, train.early_stop.spans["metric"]))
    if train.checkpoint is not None and train.checkpoint.best is not None:
        uses.append((train.checkpoint.best, train.checkpoint.spans["best"]))
    for metric, span in uses:
        if metric not in known:
            hint = f"known are {', '.join(sorted(known))}"
            context.fault("E301", f"no metric is named `{metric}`", span, hint=hint)


def _check_learn(learn: Learn, spans: Mapping[str, Span], context: Context) -> None:
    for method, field, key in (("td_n", "n", "n"), ("td_lambda", "lambda_", "lambda")):
        if learn.method == method and field not in spans:
            message = f"`{method}` needs `{key}`"
            context.fault("E007", message, spans["method"], hint=f"add `{key}:` to `learn`")
        if learn.method and learn.method != method and field in spans:
            message = f"`{key}` belongs to `{method}`, not to `{learn.method}`"
            context.fault("E016", message, spans[field])
    if "explore" in spans and "epsilon" in spans:
        labels = (Label(spans["explore"], "`explore` given here"),)
        message = "give `epsilon` or `explore`, not both"
        context.fault("E016", message, spans["epsilon"], labels=labels)


_COUNT = whole(1)
_SEED = whole(0)
_OPTIMIZER = Key("optimizer", call_of(OPTIMIZERS), "the update rule, as a call")
_SCHEDULE = Key("schedule", chain_of(SCHEDULES), "the learning rate over time, as calls with `>>`")
_CLIP = Key("clip", _clip(), "a bound on gradients: a norm, `norm(..)`, `value(..)`, `weights(..)`")

OBJECTIVE_KEYS = (
    Key("loss", source_text(), "the scalar to make small", required=True),
    Key("name", name(IDENTIFIER, "a name"), "how logs call it"),
    Key("over", _one_or_more(path()), "the labels or paths of the weights that it updates"),
    Key("steps", _COUNT, "steps per round"),
    _OPTIMIZER,
    _SCHEDULE,
    _CLIP,
)

VALIDATION_KEYS = (
    Key("data", text(), "a data set of its own"),
    Key("fraction", number(0, 1, above=True, below=True), "the part of the data to hold out"),
    Key("every", _COUNT, "epochs between validations"),
    Key("batch", _COUNT, "examples per batch"),
)

EARLY_STOP_KEYS = (
    Key("metric", name(IDENTIFIER, "a metric's name"), "`loss` or one of `metrics`"),
    Key("patience", _COUNT, "validations without improvement"),
    Key("mode", choice("min", "max"), "whether smaller or larger is better"),
    Key("min_delta", number(0), "the least improvement that counts"),
)

CHECKPOINT_KEYS = (
    Key("every", _COUNT, "epochs between checkpoints"),
    Key("keep", _COUNT, "how many of the last ones to keep"),
    Key("best", name(IDENTIFIER, "a metric's name"), "the metric whose best one is kept as well"),
    Key("path", text(), "the folder to write to"),
)

TRAIN_KEYS = (
    Key("data", text(), "an entry of `data`, a built-in data set, or a path"),
    Key("epochs", _COUNT, "passes over the data"),
    Key("steps", _COUNT, "updates"),
    Key("batch", _COUNT, "examples per update"),
    Key("accumulate", _COUNT, "batches per update"),
    Key("shuffle", flag(), "whether each epoch has its own order"),
    Key("balance", name(IDENTIFIER, "an input's name"), "labels whose classes come equally often"),
    Key("seed", _SEED, "seed of initialisation, order and noise"),
    Key("objective", source_text(block=True), "the loss: one formula, or statements in a block"),
    Key(
        "objectives",
        list_of(record(OBJECTIVE_KEYS, Objective, _check_objective), 1),
        "several losses in turn, each over its own weights",
    ),
    _OPTIMIZER,
    _SCHEDULE,
    _CLIP,
    Key("ema", number(0, 1, above=True, below=True), "decay of an average of the weights"),
    Key("weight_decay_exclude", list_of(path()), "matrices that are not decayed either"),
    Key("weight_decay_vectors", flag(), "whether norms, biases and other vectors are decayed too"),
    Key("label_smoothing", number(0, 1, below=True), "how much of a label goes to all classes"),
    Key("metrics", mapping_of(source_text(), IDENTIFIER), "formulas to report, by name"),
    Key("validate", record(VALIDATION_KEYS, Validation), "validation while training"),
    Key("early_stop", record(EARLY_STOP_KEYS, EarlyStop), "when to stop before the end"),
    Key("checkpoint", record(CHECKPOINT_KEYS, Checkpointing), "when to save"),
    Key("memory", size(), "the most memory a step may take"),
    Key("augment", chain_of(AUGMENTATIONS), "changes to the examples, as calls with `>>`"),
    Key("freeze", list_of(path()), "weights that are not trained"),
    Key("tbptt", _COUNT, "steps between cuts of back-propagation through time"),
    Key(
        "init",
        mapping_of(located(source_text()), PATH, "a weight path"),
        "initialisers by weight path",
    ),
)

SOLVE_KEYS = (
    Key("method", choice(*SOLVERS), "the solver"),
    Key("tol", number(0, above=True), "the error of the values that is allowed"),
    Key("gamma", number(0, 1), "the discount, if the model leaves it open"),
    Key("max_steps", _COUNT, "iterations after which it gives up"),
    Key("sweeps", _COUNT, "evaluation sweeps of modified policy iteration"),
    Key("evaluation", choice("iterative", "direct"), "how policy iteration evaluates a policy"),
    Key("horizon", _COUNT, "steps after which the process ends"),
    Key("average", flag(), "whether the reward a step in the long run counts"),
)

LEARN_KEYS = (
    Key("method", choice(*LEARNERS), "the learning rule", required=True),
    Key("episodes", _COUNT, "episodes to learn from"),
    Key("max_steps", _COUNT, "steps after which an episode is cut"),
    Key("alpha", number(0, 1, above=True), "the step size"),
    Key("gamma", number(0, 1), "the discount, if the model leaves it open"),
    Key("epsilon", number(0, 1), "short for `explore: epsilon_greedy(epsilon)`"),
    Key("lambda", number(0, 1), "trace decay of `td_lambda`", field="lambda_"),
    Key("n", _COUNT, "steps of `td_n`"),
    Key("seeds", _one_or_more(_SEED), "seeds of the runs"),
    Key("explore", call_of(EXPLORATION), "how actions are chosen while learning"),
    Key("schedule", chain_of(SCHEDULES), "`alpha` over episodes, as calls with `>>`"),
    Key("start", _one_or_more(_SEED), "the state in which episodes start; any by default"),
    Key("traces", choice("accumulating", "replacing"), "traces of `td_lambda`"),
    Key("visits", choice("first", "every"), "visits that `monte_carlo` counts"),
    Key("importance", choice("ordinary", "weighted"), "`monte_carlo` from random episodes"),
)


TRAIN = record(TRAIN_KEYS, Train, _check_train)
SOLVE = record(SOLVE_KEYS, Solve)
LEARN = record(LEARN_KEYS, Learn, _check_learn)
