"""Data for training: sets of examples, readers of the usual formats, and batches of them."""

from .dataset import ArrayDataset, Dataset, Field, require_labels
from .feed import feed
from .loader import IterableLoader, Loader
from .sources import Data, Source, is_examples, open_dataset

__all__ = [
    "ArrayDataset",
    "Data",
    "Dataset",
    "Field",
    "IterableLoader",
    "Loader",
    "Source",
    "feed",
    "is_examples",
    "open_dataset",
    "require_labels",
]
