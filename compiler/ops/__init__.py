"""The op table: one file a family, imported here so that the table is complete on import."""

from .base import LAYERS, OPS, Builder, Layer, Op, OpError, Operand, Setting, infer

__all__ = ["LAYERS", "OPS", "Builder", "Layer", "Op", "OpError", "Operand", "Setting", "infer"]
