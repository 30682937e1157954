"""The op table: one file a family, imported here so that the table is complete on import."""

from . import activations as activations
from . import adjoints as adjoints
from . import chain as chain
from . import contract as contract
from . import control as control
from . import conv as conv
from . import distributions as distributions
from . import dropout as dropout
from . import elementwise as elementwise
from . import fields as fields
from . import fused as fused
from . import gather as gather
from . import initialise as initialise
from . import language as language
from . import leaves as leaves
from . import linalg as linalg
from . import losses as losses
from . import metrics as metrics
from . import mining_losses as mining_losses
from . import moments as moments
from . import movement as movement
from . import norm as norm
from . import outer_densities as outer_densities
from . import pool as pool
from . import random as random
from . import reduce as reduce
from . import resize as resize
from . import shaping as shaping
from . import sort as sort
from . import steps as steps

from . import gradients as gradients  # isort: skip
from . import expansions as expansions  # isort: skip
from .base import LAYERS, OPS, Builder, Layer, Op, Operand, OpError, Setting, infer

__all__ = ["LAYERS", "OPS", "Builder", "Layer", "Op", "OpError", "Operand", "Setting", "infer"]
