"""Data for training: sets of examples, readers of the usual formats, and batches of them."""

from .batches import Batches, open_batches
from .dataset import ArrayDataset, Dataset, Field, require_labels
from .feed import feed
from .loader import IterableLoader, Loader
from .sources import Data, Source, open_dataset

__all__ = [
    "ArrayDataset",
    "Batches",
    "Data",
    "Dataset",
    "Field",
    "IterableLoader",
    "Loader",
    "Source",
    "feed",
    "open_batches",
    "open_dataset",
    "require_labels",
]
