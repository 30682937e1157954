"""The public face: load a spec, look at it, prove its facts, run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from . import zoo
from .compiler.autodiff import expand_gradients
from .compiler.cost import Cost, cost
from .compiler.initial_weights import InitialWeights
from .compiler.interpret import bind_sizes, interpret, require_constraints
from .compiler.ir.dims import Dim, DimLike
from .compiler.ir.graph import Graph
from .compiler.ir.text import print_graph
from .compiler.ir.types import DTYPES, FLOATS, TensorType
from .compiler.ops.base import OpError
from .compiler.options import Options
from .compiler.why import why
from .execution import Kept
from .given_weights import fit_weights, weight_arrays
from .inference import Questions, latent_variables
from .proof import Proof, Report, prove, sizes_at
from .runtime import disk_cache, machine
from .runtime.faults import RuntimeFault
from .runtime.images import Preprocess
from .runtime.inputs import (
    Declared,
    check_input,
    generated_bytes,
    is_generated,
    is_picture,
    parse_assignments,
    read_input,
)
from .runtime.outputs import read_labels, save_outputs, top_classes
from .runtime.train.plot import plot_runs
from .runtime.weights import save_weights
from .spec import syntax as s
from .spec.diagnostics import Diagnostic, Reporter, SpecError, render_all
from .spec.elaborate import Model, elaborate
from .spec.envelope import Envelope, load_envelope
from .spec.formatter import format_spec
from .spec.overrides import override_sections, split_overrides
from .spec.schema import json_schema
from .specs import (
    decode_spec,
    find_spec,
    read_spec,
    resolver,
    short_path,
    spec_syntax,
    statements_of,
)

if TYPE_CHECKING:
    from .decide import Solution
    from .derivatives import ValueAndGrad
    from .learning import Lessons
    from .training import Run

__all__ = [
    "Graph",
    "Options",
    "Preprocess",
    "Program",
    "Proof",
    "Report",
    "SpecError",
    "decode_spec",
    "disk_cache",
    "find_spec",
    "format_spec",
    "json_schema",
    "load",
    "located_faults",
    "machine",
    "plot_runs",
    "print_graph",
    "read_labels",
    "read_spec",
    "render_all",
    "save_outputs",
    "save_weights",
    "spec_syntax",
    "top_classes",
    "why",
    "zoo",
]

BATCH = "N"
ENGINES = ("reference", "cpu")
Sizes = Mapping[str, "int | Sequence[int | str]"]
"""Sizes by symbol and shapes by input, where a text leaves a size open."""

Shapes = Mapping[str, "int | tuple[int | str, ...]"]


def load(
    spec: str | os.PathLike[str],
    *,
    set: Mapping[str, Any] | Sequence[str] = (),
    sizes: Sizes | None = None,
    variant: str | None = None,
) -> Program:
    """Load a spec.

    Parameters
    ----------
    spec
        A path, the name of a spec in the zoo (``"resnet"``), or of a variant (``"resnet50"``).
    set
        Option overrides, ``{"depths": [3, 4, 23, 3]}`` or ``["depths=[3, 4, 23, 3]"]``, and
        settings of sections, ``{"train.epochs": 5}``, ``["learn.explore=softmax(0.5)"]``.
    sizes
        Values of open sizes and shapes of inputs: ``{"T": 100, "image": (1, 3, 224, 224)}``.
    variant
        One of the spec's variants; its default one when it is not given.

    Raises
    ------
    SpecError
        When the spec cannot be used; it holds every fault, and its text is the rendered messages.
    """
    path, named = find_spec(spec)
    if named is not None and variant not in (None, named):
        message = f"`{spec}` is a variant already, so it has no variant `{variant}`"
        raise SpecError([Diagnostic("E014", message)], {})
    overrides, of_sections = split_overrides(_overrides(set))
    reporter = Reporter()
    envelope = load_envelope(path, reporter, short_path(path))
    if envelope is not None and of_sections:
        envelope = override_sections(envelope, of_sections, reporter)
    if envelope is None or reporter.failed:
        _check_model_too(envelope, reporter)
        reporter.raise_if_failed()
    assert envelope is not None
    given = {name: n if isinstance(n, int) else tuple(n) for name, n in (sizes or {}).items()}
    model, left = _elaborate(envelope, reporter, variant or named, overrides, given)
    with located_faults(reporter.sources):
        graph = model.graph.bind(sizes_at(model.graph, left))
    return Program(model, graph, dict(reporter.sources), bool(overrides))


@dataclass(frozen=True)
class Program(Questions):
    """A loaded spec.

    ``graph`` may hold open sizes such as the batch ``N``. ``sources`` are the texts that messages
    show; ``overridden`` says whether options differ from the spec's, so that its facts need not
    hold.
    """

    model: Model
    graph: Graph
    sources: Mapping[str, str]
    overridden: bool = False
    asked: Kept = field(default_factory=Kept, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.model.name

    @property
    def variant(self) -> str | None:
        """The variant, ``None`` where the spec has none."""
        return self.model.variant

    @property
    def variants(self) -> tuple[str, ...]:
        """Every variant of the spec."""
        return tuple(self.model.envelope.variants)

    @property
    def inputs(self) -> dict[str, TensorType]:
        """Types of the inputs by name; a random ``key`` may be left out of a call."""
        return {node.name: node.type for node in map(self.graph.node, self.graph.inputs)}

    @property
    def outputs(self) -> dict[str, TensorType]:
        """Types of the outputs by name."""
        return {name: self.graph.type_of(value) for name, value in self.graph.outputs}

    def parameters(self) -> dict[str, TensorType]:
        """Types of all weights, buffers included, by path."""
        return {str(node.attrs["path"]): node.type for _, node in self.graph.of_op("param")}

    def nominal_sizes(self) -> dict[str, int]:
        """Open sizes at which the spec states its facts (``at:``), the batch left open.

        They are what pictures are resized to and what a drawing shows when nothing else is said.
        """
        expect = self.model.envelope.expect
        chosen = [expect[name] for name in (self.variant or "", self.name) if name in expect]
        shapes = next((e.at for e in [*chosen, *expect.values()] if e.at), {})
        try:
            sizes = sizes_at(self.graph, shapes)
        except OpError:
            # `check` reports shapes that do not fit; they are no help here.
            return {}
        return {name: size for name, size in sizes.items() if name != BATCH}

    def whole_options(self) -> dict[str, int]:
        """Options that are whole numbers, by name."""
        return {
            name: value
            for name, value in self.model.options.items()
            if isinstance(value, int) and not isinstance(value, bool)
        }

    def with_options(self, options: Mapping[str, int]) -> Program:
        """The same model with other values of some options."""
        reporter = Reporter()
        overrides = [f"{name}={value}" for name, value in options.items()]
        model = elaborate(
            self.model.envelope, reporter, self.variant, overrides, None, resolver(reporter)
        )
        return Program(model, model.graph, self.sources, True)

    def cost(self, sizes: Mapping[str, DimLike] | None = None) -> Cost:
        """Parameters, multiply-accumulates and bytes; the batch ``N`` is 1 unless it is given."""
        return cost(self.graph, sizes)

    def check(self) -> Report:
        """Prove the facts that the spec states about this variant."""
        paths = None if self.overridden else self._other_paths
        decides = bool(self.graph.of_op("fix"))
        if self.parameters() or (self.inputs and not decides):
            return prove(self.model, self.graph, paths)
        # A table of a decision process may come from the spec's data.
        answers = (lambda: self.solve().outputs) if decides else self.run
        return prove(self.model, self.graph, paths, answers)

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        seed: int = 0,
        engine: str = "reference",
        precision: str | None = None,
        strict: bool = True,
        note: Callable[[str], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name.

        Parameters
        ----------
        inputs
            Arrays by input name.
        weights
            A ``.safetensors`` or ``.npz`` file, or arrays by path; without them the spec's
            initialisers are used with ``seed``.
        engine
            ``reference``: numpy, exact and slow. ``cpu``: compiled for this machine, float32.
        precision
            A float type (``f64``) to compute in, instead of the spec's.
        strict
            Whether weights must match one to one; otherwise what fits is used.
        note
            Gets a line about each weight that is left out.

        Raises
        ------
        SpecError
            For inputs or weights that do not fit, and what this version cannot run.
        """
        with located_faults(self.sources):
            self.require_runnable(engine, precision)
            arrays = self.checked_inputs(inputs or {})
            given = weight_arrays(weights)
            sizes = self._sizes(arrays, given)
            if not (model := bool(self.graph.of_op("site", "factor"))):
                self.require_memory(self.graph, sizes, precision)
            found: dict[str, np.ndarray] = {}
            if given is not None:
                name = "the weights" if isinstance(weights, Mapping) else os.fspath(weights or "")
                found = fit_weights(self, given, name, sizes, strict, note or (lambda line: None))
            params = found | self.initial_weights(seed, sizes, found.keys())
            if model:
                return self._answers(arrays, params, sizes, seed, engine, precision)
            if engine == "cpu":
                from .compiled import CompiledProgram

                return CompiledProgram(self, params).module(sizes).run(arrays)
            graph = expand_gradients(self.graph)
            with np.errstate(all="ignore"):
                return interpret(graph, arrays, params, seed, bindings=sizes, precision=precision)

    def train(self, data: Any = None, **options: Any) -> Run:
        """Train by the spec's ``train:`` section; see :func:`training.train` for the options.

        ``data`` are arrays by field, a file, a name under ``data:``, or batches to go through; the
        section's own without it. ``epochs=3``, ``out="runs/x"``, ``engine="reference"`` and the
        like take the place of what the section says. Steps are compiled unless another engine is
        asked for; where an op has no kernel, the reference interpreter runs them, and that is told.
        ``precise=True`` compiles without Winograd.
        """
        from .training import train

        return train(self, data, **options)

    def value_and_grad(
        self,
        of: str | None = None,
        wrt: Sequence[str] | None = None,
        training: bool = False,
        engine: str = "reference",
        precise: bool = False,
    ) -> ValueAndGrad:
        """Derivatives of an output that is one number; see :func:`derivatives.value_and_grad`."""
        from .derivatives import value_and_grad

        return value_and_grad(self, of, wrt, training, engine, precise=precise)

    def solve(self, inputs: Mapping[str, Any] | None = None, **how: Any) -> Solution:
        """Solve a decision process from its model: see :func:`tilth.decide.solve`."""
        from .decide import solve

        return solve(self, inputs, **how)

    def learn(self, inputs: Mapping[str, Any] | None = None, **how: Any) -> Lessons:
        """Learn a decision process from episodes: see :func:`tilth.learning.learn`."""
        from .learning import learn

        return learn(self, inputs, **how)

    def read_inputs(
        self, texts: Sequence[str], seed: int = 0, preprocess: Preprocess | None = None
    ) -> dict[str, np.ndarray]:
        """Arrays from ``name=value`` texts: files, pictures, ``random`` or ``zeros``.

        Files come first, so that what is generated takes its sizes from them. What nothing tells
        is 1 for the batch and the size at which the spec states its facts for the rest.
        """
        with located_faults(self.sources):
            how = preprocess or Preprocess()
            declared, nominal = self.declared(), self.nominal_sizes()
            if self.graph.of_op("site") and any(t.partition("=")[0] not in declared for t in texts):
                declared = {**latent_variables(self), **declared}
            fitted = self.declared(nominal) if how.fit != "keep" else declared
            values = parse_assignments(texts, declared)
            found = {
                name: read_input(
                    name, value, fitted[name] if is_picture(value) else declared[name], seed, how
                )
                for name, value in values.items()
                if not is_generated(value)
            }
            shapes = {name: a.shape for name, a in found.items() if name in self.inputs}
            sizes = sizes_at(self.graph, shapes)
            full = self.declared({BATCH: 1, **nominal, **sizes})
            machine.require_memory(generated_bytes(values, full), "generating the inputs")
            found |= {
                name: read_input(name, value, full[name], seed, how)
                for name, value in values.items()
                if is_generated(value)
            }
            return found

    def initial_weights(
        self, seed: int = 0, sizes: Mapping[str, int] | None = None, without: Container[str] = ()
    ) -> dict[str, np.ndarray]:
        """Weights by path from the spec's initialisers, those in ``without`` left out."""
        made = InitialWeights(self.graph.bind(sizes or {}), seed)
        return {path: made[path] for path in made if path not in without}

    def declared(self, sizes: Mapping[str, DimLike] | None = None) -> dict[str, Declared]:
        """What each input must be, with the sizes that are known filled in."""
        kinds = {name: kind.bind(sizes or {}) for name, kind in self.inputs.items()}
        return {
            name: Declared(
                DTYPES[kind.dtype], tuple(str(d) if isinstance(d, Dim) else d for d in kind.shape)
            )
            for name, kind in kinds.items()
        }

    def require_runnable(self, engine: str = "reference", precision: str | None = None) -> None:
        """Raise ``SpecError`` E804 for what this version cannot run."""
        if engine not in ENGINES:
            message = f"there is no engine `{engine}` in this version"
            _fail("E804", message, hint=f"there is {', '.join(ENGINES)}")
        if precision is not None and precision not in FLOATS:
            _fail("E408", f"`{precision}` is not a float type", hint=f"one of {', '.join(FLOATS)}")
        if engine == "cpu" and precision not in (None, "f32"):
            _fail("E408", "the engine `cpu` computes in f32", hint="use `--engine reference`")

    def sizes_of(
        self, arrays: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, int]:
        """Values of all open sizes, from inputs (which are checked) and weights."""
        return self._sizes(self.checked_inputs(arrays), weights)

    def checked_inputs(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Arrays by input name in their declared types; raises ``SpecError`` E802."""
        self._require_inputs(given)
        kinds = self.declared()
        return {name: check_input(name, np.asarray(a), kinds[name]) for name, a in given.items()}

    def require_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise ``SpecError`` E805 when a size is open, ``OpError`` E802 when sizes do not fit."""
        missing = sorted(self.graph.symbols - sizes.keys())
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            what = f"size {names} has" if len(missing) == 1 else f"sizes {names} have"
            shapes = ", ".join(f"{name}: {kind}" for name, kind in self.inputs.items())
            _fail("E805", f"the {what} no value", shapes,
                  f"give it, `--shape {missing[0]}=SIZE`, or an input's whole shape, such as "
                  "`--shape image=1x3x224x224`")  # fmt: skip
        require_constraints(self.graph, sizes)

    def weights_for(self, weights: Any = None, seed: int = 0) -> Mapping[str, np.ndarray]:
        """Weights by path from a file or arrays, else from the initialisers.

        Open sizes of weights (of models that leave them open) must be set by the inputs; then
        only given weights will do.
        """
        given = weight_arrays(weights)
        if given is None:
            return InitialWeights(self.graph.bind(self.nominal_sizes()), seed)
        name = "the weights" if isinstance(weights, Mapping) else os.fspath(weights)
        open_weights = any(kind.symbols for kind in self.parameters().values())
        sizes = self._sizes({}, given) if open_weights else {}
        return fit_weights(self, given, name, sizes)

    # ------------------------------------------------------------ helpers

    def _other_paths(self) -> set[str]:
        """Weight paths of the spec's other variants."""
        found: set[str] = set()
        for variant in self.variants:
            reporter = Reporter()
            try:
                model = elaborate(
                    self.model.envelope, reporter, variant, resolver=resolver(reporter)
                )
            except SpecError:
                # A variant with faults has no paths; checking it tells why.
                continue
            found |= {str(node.attrs["path"]) for _, node in model.graph.of_op("param")}
        return found

    def require_memory(
        self, graph: Graph, sizes: Mapping[str, int], precision: str | None = None
    ) -> None:
        """Refuse to run a graph that the machine cannot hold (E703)."""
        total = cost(graph, sizes)
        held = (total.parameter_bytes, total.buffer_bytes, total.peak_bytes)
        double = 2 if precision == "f64" else 1
        machine.require_memory(double * sum(n for n in held if isinstance(n, int)), "this run")

    def _require_inputs(self, given: Mapping[str, Any]) -> None:
        wanted = {name: kind for name, kind in self.inputs.items() if name != "key"}
        listed = ", ".join(f"{name} : {kind}" for name, kind in wanted.items()) or "none"
        for name in given.keys() - self.inputs.keys():
            _fail("E802", f"no input is called `{name}`", f"the inputs are {listed}")
        missing = [name for name in wanted if name not in given]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            what = f"input {names} is" if len(missing) == 1 else f"inputs {names} are"
            hint = f"give a file or `random`: `--input {missing[0]}=random`"
            _fail("E802", f"{what} missing", f"the inputs are {listed}", hint)

    def _sizes(
        self, arrays: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray] | None
    ) -> dict[str, int]:
        """Values of all open sizes: from inputs, and from weights where no input tells."""
        told = {symbol for name in arrays for symbol in self.inputs[name].symbols}
        shapes = {
            path: given[path].shape
            for path, kind in self.parameters().items()
            if given is not None and path in given and kind.symbols - told
        }
        feeds = {name: array.shape for name, array in arrays.items()}
        if "key" in self.inputs and "key" not in feeds:
            feeds["key"] = (2,)
        return bind_sizes(self.graph, feeds, shapes)


@contextmanager
def located_faults(sources: Mapping[str, str]) -> Iterator[None]:
    """Turn faults of ops and of the runtime into a ``SpecError``."""
    try:
        yield
    except OpError as fault:
        diagnostic = Diagnostic(fault.code, fault.message, fault.span, fault.found, hint=fault.hint)
        raise SpecError([diagnostic], sources) from fault
    except RuntimeFault as fault:
        found = "\n   ".join(fault.details)
        diagnostic = Diagnostic(fault.code, fault.message, None, found, hint=fault.hint)
        raise SpecError([diagnostic], sources) from fault


# ---------------------------------------------------------------- loading


def _elaborate(
    envelope: Envelope,
    reporter: Reporter,
    variant: str | None,
    overrides: Sequence[str],
    given: Shapes,
) -> tuple[Model, Shapes]:
    """The model with its sizes open, or else, where it needs them, with the given ones.

    The second result are the given sizes that remain to be filled in.
    """
    known = list(reporter.diagnostics)
    resolve = resolver(reporter)
    try:
        return elaborate(envelope, reporter, variant, overrides, None, resolve), given
    except SpecError:
        if not given:
            raise
    reporter.diagnostics[:] = known
    sizes = _symbol_sizes(envelope, given)
    model = elaborate(envelope, reporter, variant, overrides, sizes, resolve)
    # A size that is used nowhere is no size of this spec; sizes_at says so.
    used = {n.id for row in model.statements for n in s.walk(row) if isinstance(n, s.Name)}
    return model, {n: v for n, v in given.items() if isinstance(v, tuple) or n not in used}


def _check_model_too(envelope: Envelope | None, reporter: Reporter) -> None:
    """Report the model block's syntax along with the faults around it."""
    if envelope is not None:
        statements_of(envelope, reporter)


def _symbol_sizes(envelope: Envelope, given: Shapes) -> dict[str, int]:
    """Values of symbols, read off the input declarations before anything is elaborated."""
    rows = statements_of(envelope, Reporter())
    sizes = {name: size for name, size in given.items() if isinstance(size, int)}
    for row in (row for row in rows if isinstance(row, s.Input)):
        for name in row.names:
            shape = given.get(name, ())
            pairs = zip(row.type.dims, shape if isinstance(shape, tuple) else (), strict=False)
            for dim, size in pairs:
                if isinstance(dim, s.Name) and isinstance(size, int):
                    sizes.setdefault(dim.id, size)
    return {name: size for name, size in sizes.items() if name not in envelope.options}


def _overrides(options: Mapping[str, Any] | Sequence[str]) -> list[str]:
    if isinstance(options, Mapping):
        return [f"{name}={_yaml(value)}" for name, value in options.items()]
    return list(options)


def _yaml(value: Any) -> str:
    """A Python value as YAML flow text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value)


# ---------------------------------------------------------------- running


def _fail(code: str, message: str, found: str = "", hint: str | None = None) -> NoReturn:
    raise SpecError([Diagnostic(code, message, None, found, hint=hint)], {})
