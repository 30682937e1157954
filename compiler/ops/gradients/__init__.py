"""Gradients of the op table, one file a family; imported here so that the table is complete.

At a kink, a tie or a jump a gradient is one of the one-sided derivatives, the same on every run:
``relu`` and ``abs`` have slope 0 at 0; of equal elements ``max``, ``min`` and pooling credit the
first in row-major order, ``maximum`` and ``minimum`` their first operand; sorting is stable, so
that equal elements keep their order; ``clamp`` passes gradients at its bounds.
"""

from . import activations as activations
from . import chain as chain
from . import contract as contract
from . import conv as conv
from . import elementwise as elementwise
from . import fields as fields
from . import gather as gather
from . import linalg as linalg
from . import losses as losses
from . import mining_losses as mining_losses
from . import movement as movement
from . import norm as norm
from . import pool as pool
from . import probability as probability
from . import reduce as reduce
from . import resize as resize
from . import steps as steps
from . import structure as structure
