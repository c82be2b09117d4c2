"""TOML with line numbers: what `tomllib` reads, plus where each key stands, so that an error can name the line."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import Problem

FILE_BYTES_MAX = 16 * 1024 * 1024

Key = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*\[(\[)?\s*([^\]#]+?)\s*\]")
_ASSIGNMENT = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


@dataclass(slots=True)
class TomlFile:
    """data: the parsed document. lines: path of keys and list positions -> line number (1-based)."""

    path: Path
    data: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)

    def line(self, key: Key) -> int:
        """Return the line of the key, or of the nearest table around it; 0 for the file as a whole."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key[:-1]
        return 0


def read_toml(path: Path, problems: list[Problem]) -> TomlFile | None:
    """Read a file; a missing, unreadable or malformed one is a problem and gives None."""
    try:
        raw = path.read_bytes()
        if len(raw) > FILE_BYTES_MAX:
            problems.append(Problem(str(path), 0, f"is larger than {FILE_BYTES_MAX} bytes", "split the configuration"))
            return None
        text = raw.decode()
    except OSError as error:
        problems.append(
            Problem(str(path), 0, f"cannot be read: {error.strerror}", "check the path and its permissions")
        )
        return None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problems.append(Problem(str(path), line, "is not UTF-8", "save the file as UTF-8"))
        return None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        problems.append(Problem(str(path), int(found[1]) if found else 0, f"is not valid TOML: {error}"))
        return None
    return TomlFile(path, data, _locate(text))


def _parts(dotted: str) -> Key:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _locate(text: str) -> dict[Key, int]:
    """Note the line of each table header and assignment. Positions only: the meaning is tomllib's business."""
    lines: dict[Key, int] = {}
    counts: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            key = _resolve(_parts(header[2]), counts)
            if header[1]:
                position = counts.get(key, 0)
                counts[key] = position + 1
                lines.setdefault(key, number)
                key = (*key, position)
            table = key
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault(table + _parts(assignment[1]), number)
    return lines


def _resolve(parts: Key, counts: dict[Key, int]) -> Key:
    """Insert the position of the newest element wherever a prefix names an array of tables."""
    key: Key = ()
    for i, part in enumerate(parts):
        key = (*key, part)
        if key in counts and i < len(parts) - 1:
            key = (*key, counts[key] - 1)
    return key
