"""Typed diagnostics: what is wrong, where, and the way out; one renderer for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..compiler.ir.types import Span

CODES: dict[str, str] = {}
"""Every diagnostic code with its one-line meaning (filled below by family)."""

CODES |= {
    # E00x-E09x: the YAML envelope
    "E001": "the file cannot be read",
    "E002": "not valid YAML",
    "E003": "duplicate key",
    "E004": "unknown key",
    "E005": "aliases, anchors, merge keys and tags are not part of the format",
    "E006": "wrong kind of value",
    "E007": "missing key",
    "E008": "unsupported language version",
    "E009": "the model block must be a literal block",
    "E010": "a comment at column 0 ended the model block",
    "E011": "YAML split an unquoted call in two",
    "E012": "an apostrophe inside single quotes",
    "E013": "not a text file",
    "E014": "unknown variant",
    "E015": "unknown option",
    "E016": "a section setting is out of range",
    # E1xx: shapes and types
    "E101": "wrong rank",
    "E102": "branches of different shape",
    "E103": "sizes do not agree",
    "E104": "wrong element type",
    "E105": "a size is not a whole number",
    "E106": "a size would be zero or negative",
    "E107": "axis out of range",
    "E108": "not divisible",
    "E109": "tensors cannot be joined",
    "E110": "a condition cannot be decided while compiling",
    # E2xx: syntax
    "E201": "unexpected token",
    "E202": "unexpected character",
    "E203": "unclosed bracket",
    "E204": "a chain needs brackets here",
    "E205": "a statement is incomplete",
    "E206": "a keyword stands where a name is needed",
    "E207": "nested too deeply",
    # E3xx: names and scopes
    "E301": "unknown name",
    "E302": "defined twice",
    "E303": "a definition shadows an op",
    "E304": "a circular definition",
    "E305": "two weights on one path",
    "E306": "nothing is output",
    "E307": "unknown spec in `use`",
    "E308": "not a definition that can be called",
    # E4xx: calls and settings
    "E401": "unknown setting",
    "E402": "missing setting",
    "E403": "too many arguments",
    "E404": "wrong kind of setting",
    "E405": "a block where a tensor is needed",
    "E406": "a tensor where a block is needed",
    "E407": "wrong number of tensors",
    "E408": "a setting is out of range",
    "E409": "not a constant",
    "E410": "wrong number of parts",
    # E5xx: indices and recurrences
    "E501": "an index is used outside its reducer",
    "E502": "the range of an index is unknown",
    "E503": "ranges of an index disagree",
    "E504": "an index is out of range",
    "E505": "a recurrence reads too far",
    "E506": "a recurrence has no direction",
    "E507": "too many indices",
    "E508": "an index is not bound",
    "E509": "equations leave a gap",
    # E6xx: probabilistic and decision models
    "E601": "not a distribution",
    "E602": "a random variable is drawn twice",
    "E603": "probabilities do not sum to 1",
    "E604": "not a random variable",
    "E605": "the support of a variable is unknown",
    "E606": "a new value without its old one",
    "E607": "a parameter domain does not fit",
    "E608": "a leaf that nothing observes",
    "E609": "a random variable has no prior",
    "E610": "exact inference is too large",
    "E611": "an observation is outside the support",
    "E612": "a parameter cannot be estimated",
    "E613": "two models cannot be compared",
    "E614": "an approximation is not a number",
    "E621": "the equations are not those of a decision process",
    "E622": "a decision process has no end",
    # E7xx: limits
    "E701": "the expansion does not end",
    "E702": "the expansion is too large",
    "E703": "the model needs too much memory",
    # E8xx: weights, inputs and running
    "E801": "weights do not match",
    "E802": "an input is missing or does not fit",
    "E803": "a file cannot be read",
    "E804": "belongs to a part that is not built yet",
    "E805": "a size is not bound",
    "E806": "a file cannot be written",
    "E807": "a data set cannot be used",
    "E808": "a checkpoint is damaged or is of something else",
    "E809": "a model cannot be differentiated",
    "E810": "training has left the finite numbers",
    # E9xx: expectations
    "E901": "an expectation is not met",
    "E902": "unknown expectation",
}


@dataclass(frozen=True)
class Label:
    """A second place that a message points to.

    Labels with a ``side`` stand on one line: ``left from 12:25 conv3, right from 14:9 id``.
    """

    span: Span
    text: str
    side: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One fault.

    ``found`` is printed beside the caret; ``labels`` name the other places; ``hint`` the way out.
    """

    code: str
    message: str
    span: Span | None = None
    found: str = ""
    labels: tuple[Label, ...] = ()
    hint: str | None = None
    severity: str = "error"

    def as_json(self) -> dict[str, object]:
        """A plain dictionary for ``--json``."""
        place: dict[str, object] = {}
        if self.span is not None:
            place = {"file": self.span.file, "line": self.span.line, "column": self.span.column}
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            **place,
            "found": self.found,
            "labels": [
                {
                    "file": x.span.file,
                    "line": x.span.line,
                    "column": x.span.column,
                    "text": f"{x.side} {x.text}".strip(),
                }
                for x in self.labels
            ],
            "hint": self.hint,
        }


class SpecError(Exception):
    """A spec that cannot be used; holds every diagnostic that was found."""

    def __init__(self, diagnostics: Iterable[Diagnostic], sources: Mapping[str, str]) -> None:
        self.diagnostics = tuple(diagnostics)
        self.sources = dict(sources)
        super().__init__(render_all(self.diagnostics, self.sources))


@dataclass
class Reporter:
    """Collects diagnostics over one run; ``sources`` maps a file's name to its text."""

    sources: dict[str, str] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def report(self, diagnostic: Diagnostic) -> None:
        """Keep a diagnostic unless the same fault at the same place is there already."""
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    @property
    def failed(self) -> bool:
        """Whether any error (not only warnings) was reported."""
        return any(d.severity == "error" for d in self.diagnostics)

    def raise_if_failed(self) -> None:
        """Raise :class:`SpecError` when there was an error."""
        if self.failed:
            ordered = sorted(self.diagnostics, key=_place)
            raise SpecError(ordered, self.sources)


def render(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    """The text of one message: place, code, excerpt with a caret, other places, hint."""
    span = diagnostic.span
    head = f"{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"
    if span is None:
        lines = [head]
        if diagnostic.found:
            lines.append(f"   {diagnostic.found}")
    else:
        lines = [f"{span.file}:{span.line}:{span.column}: {head}"]
        lines += _excerpt(span, sources.get(span.file, ""), diagnostic.found)
    sides = [f"{x.side} {_other(x, span)} {x.text}" for x in diagnostic.labels if x.side]
    if sides:
        lines.append(f"   {', '.join(sides)}")
    lines += [f"   {_other(x, span)}: {x.text}" for x in diagnostic.labels if not x.side]
    if diagnostic.hint:
        lines.append(f"   hint: {diagnostic.hint}")
    return "\n".join(lines)


def render_all(diagnostics: Iterable[Diagnostic], sources: Mapping[str, str]) -> str:
    """All messages, one after the other."""
    return "\n".join(render(d, sources) for d in diagnostics)


def nearest(name: str, candidates: Iterable[str], limit: int = 2) -> str | None:
    """The candidate within edit distance ``limit`` of ``name`` that is closest, if any."""
    best: tuple[int, str] | None = None
    for candidate in sorted(set(candidates)):
        if abs(len(candidate) - len(name)) > limit:
            continue
        distance = edit_distance(name, candidate, limit)
        # A short name at distance one or two is another name, not a slip.
        if distance <= min(limit, len(name) // 3) and (best is None or distance < best[0]):
            best = (distance, candidate)
    return best[1] if best else None


def edit_distance(a: str, b: str, limit: int) -> int:
    """Damerau-Levenshtein distance (adjacent swaps count one), cut off above ``limit``."""
    before: list[int] = []
    previous = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        current = [i]
        for j, y in enumerate(b, 1):
            cost = min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        if min(current) > limit:
            return limit + 1
        before, previous = previous, current
    return previous[-1]


def _place(diagnostic: Diagnostic) -> tuple[str, int, int]:
    span = diagnostic.span
    return (span.file, span.line, span.column) if span else ("", 0, 0)


def _other(label: Label, span: Span | None) -> str:
    """A label's place; its file too where that is another one."""
    same = span is None or label.span.file == span.file
    return str(label.span) if same else f"{label.span.file}:{label.span}"


def _excerpt(span: Span, source: str, found: str) -> list[str]:
    lines = source.splitlines()
    if not 1 <= span.line <= len(lines):
        return [f"   {found}"] if found else []
    text = lines[span.line - 1]
    # Long lines (minified or binary junk) are cut around the caret.
    first = max(0, span.column - 60) if len(text) > 120 else 0
    shown = "".join(c if c.isprintable() else "?" for c in text[first : first + 120])
    caret = " " * (span.column - 1 - first) + "^"
    number = f"{span.line:>5} | "
    return [f"{number}{shown}", f"      | {caret}" + (f" {found}" if found else "")]
