"""Columns indexed by tag index, which grow when a configuration brings new tags."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def grown(column: NDArray[T], size: int, fill: float) -> NDArray[T]:
    """Return the column with `size` rows, new ones filled."""
    if len(column) == size:
        return column
    longer = np.full(size, fill, column.dtype)
    longer[: len(column)] = column[:size]
    return longer
