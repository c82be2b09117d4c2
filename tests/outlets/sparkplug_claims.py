"""Which statement of the Sparkplug 3.0.0 specification a test stands for, by its id (tck-id-...)."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

F = TypeVar("F", bound=Callable[..., Any])


def states(*ids: str) -> Callable[[F], F]:
    """The test runs once per statement and carries its id as a parameter."""

    def mark(test: F) -> F:
        test.tck = ids  # type: ignore[attr-defined]
        marked: F = pytest.mark.parametrize("tck", ids)(test)
        return marked

    return mark


def covers(*ids: str) -> Callable[[F], F]:
    """The test runs once for all its statements: it starts processes."""

    def mark(test: F) -> F:
        test.tck = ids  # type: ignore[attr-defined]
        return test

    return mark
