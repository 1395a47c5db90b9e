"""A write-once list of tensors, for recurrent code that is read rather than served."""

import torch
from torch import Tensor


class TensorArray:
    """Tensors of one sequence, each written once; for eager code only.

    Raises:
        ValueError: if an index is outside the array, written twice, or read before it was written.
    """

    def __init__(self, name: str, size: int, dtype: torch.dtype) -> None:
        self.name = name
        self.dtype = dtype
        self._items: list[Tensor | None] = [None] * size

    def write(self, index: int, value: Tensor) -> "TensorArray":
        """Set one entry; returns the array, so that calls chain."""
        if not 0 <= index < len(self._items):
            raise ValueError(f"{self.name}: index must be in [0, {len(self._items)}), got {index}")
        if self._items[index] is not None:
            raise ValueError(f"{self.name}: index {index} was already written")
        self._items[index] = value.to(self.dtype)
        return self

    def read(self, index: int) -> Tensor:
        """One entry."""
        item = self._items[index] if 0 <= index < len(self._items) else None
        if item is None:
            raise ValueError(f"{self.name}: index {index} was not written")
        return item

    def unstack(self, values: Tensor) -> "TensorArray":
        """Write the slices of the first axis, in order."""
        if values.size(0) != len(self._items):
            raise ValueError(f"{self.name}: {len(self._items)} slices expected, got {values.size(0)}")
        for index, value in enumerate(values.unbind(0)):
            self.write(index, value)
        return self

    def stack(self) -> Tensor:
        """All entries along a new first axis."""
        return torch.stack([self.read(index) for index in range(len(self._items))])


def create_ta(name: str, size: int, dtype: torch.dtype) -> TensorArray:
    """An empty ``TensorArray`` of a size and a dtype.

    Example:
        >>> import torch
        >>> from models.layers import create_ta
        >>> create_ta("states", 2, torch.float32).unstack(torch.ones(2, 4, 3)).stack().shape
        torch.Size([2, 4, 3])
    """
    return TensorArray(name, size, dtype)
