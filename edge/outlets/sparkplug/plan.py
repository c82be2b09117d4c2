"""The plan: which assets are Sparkplug devices, what their metrics are called, which alias each has.

An alias is the tag's index plus one, so it stays the same for life. Names are the tags' own.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.outlets.sparkplug.payload import Described
from edge.sparkplug_payload import DataType
from plant.batch import BAD, GOOD, UNCERTAIN
from plant.tags import Tag, TagTable

NODE: Final = -1
"""Number of the device that tags of the gateway itself have: the edge node."""
UNPUBLISHED: Final = -2
_RESERVED = re.compile(r"[%:+#/\x00-\x1f]")


def device_id(asset: str) -> str:
    """Return the device id of an asset path: its levels joined by ":"; different assets give different ids."""

    def level(name: str) -> str:
        return _RESERVED.sub(lambda match: f"%{ord(match[0]):02X}", name)

    return ":".join(level(name) for name in asset.split("/"))


def alias_of(index: int) -> int:
    return index + 1


def selected(asset: str, assets: Sequence[str]) -> bool:
    """Tell whether an asset, or one above it, is in the list; an empty list has all."""
    return not assets or any(asset == root or asset.startswith(f"{root}/") for root in assets)


@dataclass(frozen=True, slots=True)
class Device:
    asset: str
    id: str
    tags: tuple[Tag, ...]


class Plan:
    """The devices of one tag table. Columns have the length of the table.

    device_of: int32, the number of a tag's device in `devices`, NODE or UNPUBLISHED. text: bool.
    evidence: indices of the tags that tell whether their device lives: those read from it, or, where a device has
    none, all of its.
    """

    def __init__(self, table: TagTable, assets: Sequence[str]) -> None:
        by_asset: dict[str, list[Tag]] = {}
        for tag in sorted(table.tags, key=lambda tag: tag.index):
            if tag.asset == "" or selected(tag.asset, assets):
                by_asset.setdefault(tag.asset, []).append(tag)
        self.node_tags: tuple[Tag, ...] = tuple(by_asset.pop("", ()))
        self.devices: tuple[Device, ...] = tuple(
            Device(asset, device_id(asset), tuple(tags)) for asset, tags in sorted(by_asset.items())
        )
        self.device_of: NDArray[np.int32] = np.full(table.size, UNPUBLISHED, np.int32)
        self.text: NDArray[np.bool_] = np.zeros(table.size, np.bool_)
        for tag in self.node_tags:
            self.device_of[tag.index] = NODE
        evidence: list[int] = []
        for number, device in enumerate(self.devices):
            for tag in device.tags:
                self.device_of[tag.index] = number
            read = [tag.index for tag in device.tags if not tag.virtual]
            evidence += read or [tag.index for tag in device.tags]
        for tag in table.tags:
            self.text[tag.index] = tag.text
        self.evidence: NDArray[np.intp] = np.array(evidence, np.intp)
        self._fixed: dict[tuple[int, int], bytes] = {}
        self.size = table.size

    def fixed(self, tag: Tag, quality: int) -> bytes:
        """Return the fixed part of a tag's metric in a birth, as bytes."""
        quality = quality & 0xC0 if quality & 0xC0 in (GOOD, UNCERTAIN) else BAD
        known = self._fixed.get((tag.index, quality))
        if known is None:
            texts = {"engUnit": tag.unit, "Documentation": tag.description}
            known = Described(tag.name, alias_of(tag.index), self.datatype(tag), quality, texts).encode()
            self._fixed[tag.index, quality] = known
        return known

    @staticmethod
    def datatype(tag: Tag) -> int:
        return DataType.STRING if tag.text else DataType.DOUBLE

    def alive(self, seen_good: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return per device: some of its evidence has a value that is not bad. seen_good: bool per tag index."""
        good = self.evidence[seen_good[self.evidence]]
        found: NDArray[np.bool_] = np.bincount(self.device_of[good], minlength=len(self.devices)) > 0
        return found


def same_but_for_case(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that hosts which ignore case would take for one."""
    first: dict[str, str] = {}
    found = []
    for name in names:
        other = first.setdefault(name.casefold(), name)
        if other != name:
            found.append((other, name))
    return found


def doubtful_names(table: TagTable, assets: Sequence[str]) -> list[str]:
    """Return a sentence for every two names that should differ by more than their case."""
    plan = Plan(table, assets)
    kinds = {
        "device": [device.id for device in plan.devices],
        "tag": [tag.name for device in plan.devices for tag in device.tags] + [tag.name for tag in plan.node_tags],
    }
    return [
        f"Sparkplug hosts may take {kind} {second!r} for {first!r}: they differ only by case"
        for kind, names in kinds.items()
        for first, second in same_but_for_case(names)
    ]
