"""What is known of the tensors of a run, without keeping them alive."""

import weakref
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class Tags(Generic[T]):
    """A map from tensors, by identity, that holds no tensor alive."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], T]] = {}

    def get(self, tensor: object) -> T | None:
        """Return what is known of a tensor, or None."""
        entry = self._entries.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def put(self, tensor: Tensor, value: T) -> None:
        """Note something of a tensor; ids are only unique among living tensors, hence the check."""
        self._entries[id(tensor)] = (weakref.ref(tensor), value)
