"""Which statement of the Sparkplug 3.0.0 specification a test stands for, by its id (tck-id-...)."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

MARKS = ("states", "covers")
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


FILES = ("outlets/test_sparkplug_rules.py", "outlets/test_sparkplug_host.py", "e2e/test_e2e_sparkplug.py")
TESTS = Path(__file__).parents[1]


def claims() -> dict[str, str]:
    """The tests of each statement, as the code says; read from the text, so that nothing needs to be imported."""
    found: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.walk(ast.parse((TESTS / file).read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in MARKS:
                    for argument in call.args:
                        assert isinstance(argument, ast.Constant)
                        found.setdefault(str(argument.value), []).append(f"`{file}::{node.name}`")
    return {statement: ", ".join(tests) for statement, tests in sorted(found.items())}


def rows() -> list[str]:
    """The rows of the table in docs/sparkplug.md."""
    return [f"| `{statement}` | {tests} |" for statement, tests in claims().items()]


if __name__ == "__main__":
    print("\n".join(rows()))
