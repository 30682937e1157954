"""The golden networks of training, and weights as the goldens make them."""

import math
import zlib

import numpy as np
import pytest

LENET = """tilth: 1
name: lenet
dtype: f64
model: |
  input image : f64[N, 1, 28, 28]
  logits = image
      >> conv(6, 5) as conv1 >> tanh >> avgpool(2)
      >> conv(16, 5, pad=0) as conv2 >> tanh >> avgpool(2) >> flatten
      >> linear(120) as fc1 >> tanh >> linear(84) as fc2 >> tanh >> linear(10) as fc3
  output logits
train:
  objective: |
    input label : i32[N]
    loss = cross_entropy(logits, label)
"""

RESNET8 = """tilth: 1
name: resnet8
dtype: f64
defaults: {conv: {bias: false}}
model: |
  def block(c, s=1) =
      ( conv(c, 3, stride=s) as conv1 >> bn as bn1 >> relu >> conv(c, 3) as conv2 >> bn as bn2
      + (if channels(_) == c and s == 1 then id else conv(c, 1, stride=s) >> bn) as down
      ) >> relu
  input image : f64[N, 3, 16, 16]
  logits = image >> conv(16, 3) as conv1 >> bn as bn1 >> relu
      >> block(16) as layer1 >> block(32, 2) as layer2 >> block(64, 2) as layer3
      >> gap >> linear(10) as fc
  output logits
train:
  objective: |
    input label : i32[N]
    loss = cross_entropy(logits, label)
"""


@pytest.fixture(scope="session")
def networks():
    """The golden networks by name: a spec's text."""
    return {"lenet": LENET, "resnet8": RESNET8}


@pytest.fixture(scope="session")
def golden_weight():
    """A weight by its name, as the goldens make it (float32 values)."""

    def make(path, shape):
        last = path.rpartition(".")[2]
        kinds = {"running_mean": (-0.2, 0.2), "running_var": (0.5, 1.5), "bias": (-0.1, 0.1)}
        rng = np.random.Generator(np.random.Philox(key=zlib.crc32(path.encode())))
        if len(shape) > 1:
            values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            values = rng.uniform(*kinds.get(last, (0.5, 1.5)), shape)
        # The last norm of each residual block starts small.
        values = values * 0.25 if path.endswith("bn2.weight") else values
        return values.astype(np.float32)

    return make
