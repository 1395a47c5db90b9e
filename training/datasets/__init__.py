"""Data sets: found, read, checked, split and tied to a declaration."""

from training.datasets.dataset import Dataset, Part
from training.datasets.registry import REGISTRY, fetch, load_dataset

__all__ = ["REGISTRY", "Dataset", "Part", "fetch", "load_dataset"]
