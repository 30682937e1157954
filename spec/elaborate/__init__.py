"""Elaboration: from syntax to a checked graph, all sizes, weights and paths worked out."""

from .model import Model, elaborate

__all__ = ["Model", "elaborate"]
