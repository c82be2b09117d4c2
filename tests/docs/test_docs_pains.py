"""The table of pains names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_pain_has_a_test_that_exists():
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", (ROOT / "docs" / "pains.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    for number, cell in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", cell)
        assert named, f"pain {number} has no test"
        for file, test in named:
            path = ROOT / file
            assert path.is_file(), f"pain {number}: {file} is not there"
            if test:
                assert re.search(rf"def {test}\b", path.read_text()), f"pain {number}: {file} has no {test}"
