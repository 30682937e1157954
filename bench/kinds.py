"""The table of benchmarks: each kind's rows go to ``RESULTS/MACHINE/KIND/MODEL.json``."""

from __future__ import annotations

from ..program import Program
from . import decisions, fields, latent, nets
from .kind import Kind

NETS = Kind(
    name="nets",
    what="a net",
    peers=nets.PEERS,
    packages=("onnx", "onnxruntime", "openvino", "torch"),
    key=("batch", "threads", "engine"),
    fits=lambda program: True,
    measure=nets.measure,
    options=frozenset({"batch", "engine", "profile", "seconds", "train"}),
    named=nets.file_name,
    alone=True,
)

KINDS = (
    Kind(
        name="decisions",
        what="a decision process",
        peers=("quantecon",),
        packages=("quantecon", "scipy"),
        key=("method", "threads", "states", "tol"),
        fits=decisions.is_decision,
        measure=decisions.measure,
        alone=True,
    ),
    Kind(
        name="fields",
        what="a dense random field of the zoo",
        peers=("pydensecrf",),
        packages=("pydensecrf2", "scikit-learn"),
        key=("threads", "height", "width", "labels", "steps"),
        fits=fields.is_field,
        measure=fields.measure,
    ),
    Kind(
        name="latent",
        what="a model with latent variables like `hmm` and `gmm`",
        peers=tuple(latent.PEERS),
        packages=("hmmlearn", "scikit-learn"),
        key=("peer", "setting", "question", "threads", "states", "dims", "count"),
        fits=latent.is_latent,
        measure=latent.measure,
    ),
    NETS,
)
"""Kinds of benchmarks; a program is of the first that it fits."""

PEERS = tuple(peer for kind in reversed(KINDS) for peer in kind.peers)
"""Every engine that something is measured against."""


def kind_of(program: Program, peers: tuple[str, ...] | None) -> Kind:
    """The kind that has these peers; without any, the one that the program fits."""
    for kind in KINDS:
        if peers and peers[0] in kind.peers:
            return kind
    return next(kind for kind in KINDS if kind.fits(program))
