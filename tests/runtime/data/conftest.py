"""Small sets with known contents."""

import numpy as np
import pytest
from tilth.runtime.data import ArrayDataset
from tilth.runtime.faults import RuntimeFault


@pytest.fixture
def numbered():
    """A set whose example i is the number i, with labels of three classes, unequally frequent."""

    def make(count=20):
        labels = np.array([0, 0, 0, 1, 1, 2])[np.arange(count) % 6]
        arrays = {"x": np.arange(count, dtype=np.float32), "label": labels}
        return ArrayDataset(arrays, {"label": ("a", "b", "c")})

    return make


@pytest.fixture
def fault_of():
    def run(action):
        with pytest.raises(RuntimeFault) as caught:
            action()
        return caught.value

    return run
