"""Register numbers as manuals and other gateways write them: the first digit is the area, the rest counts from 1."""

import re
from typing import Final

AREAS: Final = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
_NUMBER: Final = re.compile(r"\d{5,6}")
OFFSET_MAX: Final = 65_535


def area_and_offset(number: str) -> tuple[str, int]:
    """Return area and zero-based address of 5 or 6 digits. Raises ValueError with a sentence."""
    if not _NUMBER.fullmatch(number):
        raise ValueError(
            f'"{number}" has no 5 or 6 digits, so its area is not clear (400001 is the first holding register)'
        )
    area = AREAS.get(number[0])
    offset = int(number[1:]) - 1
    if area is None:
        raise ValueError(f'"{number}" begins with {number[0]}; areas are 0 coil, 1 discrete, 3 input and 4 holding')
    if not 0 <= offset <= OFFSET_MAX:
        raise ValueError(f'"{number}" is no register number: they count from 1 to 65536')
    return area, offset


def address(number: str, unit_id: int | None = None, bit: int | None = None) -> str:
    """Return the address as tags.csv has it. Raises ValueError with a sentence."""
    area, offset = area_and_offset(number)
    unit = "" if unit_id is None else f"{unit_id}/"
    return f"{unit}{area}/{offset}" + ("" if bit is None else f".{bit}")
