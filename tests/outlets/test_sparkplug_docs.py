"""The table of statements in the documentation is what the tests say."""

import re
from pathlib import Path

from sparkplug_claims import claims, rows

PAGE = (Path(__file__).parents[2] / "docs" / "sparkplug.md").read_text()
STATEMENTS = 287
"""Of the specification, version 3.0.0."""


def test_the_table_of_statements_is_that_of_the_tests() -> None:
    written = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z][\w-]+` \| `(outlets|e2e)/", line)]
    assert written == rows(), "python tests/outlets/sparkplug_claims.py prints the rows"


def test_every_statement_is_tested_or_left_out_with_a_reason() -> None:
    left_out = re.findall(r"`([a-z0-9]+-[\w-]+)`", PAGE.partition("## Statements that are not ours")[2], re.ASCII)
    assert len(left_out) == len(set(left_out))
    assert not set(left_out) & set(claims())
    assert len(left_out) + len(claims()) == STATEMENTS
    assert f"{len(claims())} of {STATEMENTS}" in PAGE
