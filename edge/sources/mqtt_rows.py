"""What messages become while they are read: rows of a batch, and the problems of tags."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from plant.batch import BAD, EMPTY, Batch


class Columns:
    """The rows of a batch while they are collected."""

    __slots__ = ("quality", "tag", "time", "value")

    def __init__(self) -> None:
        self.tag: list[int] = []
        self.time: list[int] = []
        self.value: list[float] = []
        self.quality: list[int] = []

    def add(self, tag: int, time: int, value: float, quality: int) -> None:
        self.tag.append(tag)
        self.time.append(time)
        self.value.append(value)
        self.quality.append(quality)

    def to_batch(self) -> Batch:
        """Return the rows; a value that is not finite is BAD."""
        if not self.tag:
            return EMPTY
        value = np.array(self.value, np.float64)
        quality: NDArray[np.uint8] = np.array(self.quality, np.uint8)
        finite = np.isfinite(value)
        if not finite.all():
            value[~finite] = np.nan
            quality[~finite] = BAD
        return Batch(np.array(self.tag, np.uint32), np.array(self.time, np.int64), value, quality)


class Problems:
    """Tag index -> why it has no data. Changed tag by tag, told as a whole."""

    def __init__(self) -> None:
        self._whys: dict[int, str] = {}
        self._told: Mapping[int, str] = {}
        self._is_told = True

    def __bool__(self) -> bool:
        return bool(self._whys)

    def set(self, tag: int, why: str) -> None:
        if self._whys.get(tag) != why:
            self._whys[tag] = why
            self._is_told = False

    def note(self, tag: int, why: str) -> None:
        """Set, but keep the first sentence while a trouble lasts: the next ones say the same of other values."""
        if tag not in self._whys:
            self.set(tag, why)

    def clear(self, tag: int) -> None:
        if self._whys.pop(tag, None) is not None:
            self._is_told = False

    def forget(self) -> None:
        """Clear all."""
        self._whys.clear()
        self._is_told = False

    def tell(self) -> Mapping[int, str]:
        """Return all as they are now; the same mapping until something changes."""
        if not self._is_told:
            self._told = dict(self._whys)
            self._is_told = True
        return self._told
