"""Reverse-mode differentiation, graph to graph: the face of the room.

``differentiate`` gives a graph that also puts out derivatives, ``gradients`` adds them to a graph
in place, ``expand_gradients`` does what ``grad(scalar, x)`` in a spec asks for, and ``to_training``
turns a graph into the one that training runs. What each op contributes is in the op table.
"""

from ..ops.expr import How
from . import loops as loops
from . import scan as scan
from .backward import adjoint, differentiate, expand_gradients, gradient_name, gradients
from .recompute import fit_memory, memory_of
from .training import Training, to_training

__all__ = [
    "How",
    "Training",
    "adjoint",
    "differentiate",
    "expand_gradients",
    "fit_memory",
    "gradient_name",
    "gradients",
    "memory_of",
    "to_training",
]
