"""CSV as plant engineers export it: comma or semicolon, UTF-8 with or without BOM, comments, with line numbers."""

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import Problem

ROWS_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row. line: where it starts in the file (1-based). cells: column -> text, stripped; "" if empty or absent."""

    line: int
    cells: Mapping[str, str]


def read_csv(path: Path, columns: Sequence[str], required: Sequence[str], problems: list[Problem]) -> list[Row]:
    """Read the rows of a file whose first row names the columns; lines that start with # are comments.

    Unknown and missing columns, and rows with more cells than the header, are problems.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problems.append(
            Problem(str(path), 0, f"cannot be read: {error.strerror}", "check the path and its permissions")
        )
        return []
    except UnicodeDecodeError:
        problems.append(Problem(str(path), 0, "is not UTF-8", "export it again as UTF-8"))
        return []
    # Comments become blank lines, not nothing, so that line numbers stay those of the file.
    lines = ["" if line.lstrip().startswith("#") else line for line in text.splitlines()]
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        problems.append(Problem(str(path), 0, "is empty", f"the first row names the columns: {','.join(columns)}"))
        return []
    delimiter = ";" if lines[first].count(";") > lines[first].count(",") else ","
    reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, strict=True)
    try:
        return _rows(path, reader, columns, required, problems)
    except csv.Error as error:
        problems.append(Problem(str(path), reader.line_num, f"is not valid CSV: {error}"))
        return []


def _rows(
    path: Path,
    reader: Any,
    columns: Sequence[str],
    required: Sequence[str],
    problems: list[Problem],
) -> list[Row]:
    header: list[str] = []
    rows: list[Row] = []
    before = 0
    for cells in reader:
        line, before = before + 1, reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip().lower() for cell in cells]
            _check_header(path, line, header, columns, required, problems)
            continue
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            what = f"has {len(cells)} cells, the header has {len(header)}"
            problems.append(Problem(str(path), line, what, "quote a text that holds the separator"))
            continue
        if len(rows) == ROWS_MAX:
            problems.append(Problem(str(path), line, f"has more than {ROWS_MAX} rows"))
            break
        row = dict.fromkeys(columns, "")
        row.update((name, cell.strip()) for name, cell in zip(header, cells, strict=False))
        rows.append(Row(line, row))
    return rows


def _check_header(
    path: Path,
    line: int,
    header: list[str],
    columns: Sequence[str],
    required: Sequence[str],
    problems: list[Problem],
) -> None:
    for name in header:
        if name and name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known columns: {', '.join(columns)}"
            problems.append(Problem(str(path), line, f"unknown column {name!r}", hint))
    missing = [name for name in required if name not in header]
    problems.extend(Problem(str(path), line, f"column {name!r} is missing") for name in missing)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    problems.extend(Problem(str(path), line, f"column {name!r} stands twice") for name in twice)
