"""Rows of the tag list and the machines' virtual tags become the tag table."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from edge.config.model import GatewayFile, TagRow
from edge.config.points import is_text
from edge.production import virtual_tags
from plant.instant import NS_PER_S
from plant.tags import Tag, TagTable


def make_tags(file: GatewayFile, rows: Sequence[TagRow]) -> list[Tag]:
    """Return every tag that the configuration asks for, measured and virtual, numbered from 0 for the time being."""
    asset_of = {options.name: options.asset for options in file.device}
    tags = [
        Tag(
            name=row.tag,
            index=i,
            asset=row.asset or asset_of.get(row.device, ""),
            device=row.device,
            unit=row.unit,
            description=row.description,
            scale=row.scale,
            offset=row.offset,
            minimum=row.minimum,
            maximum=row.maximum,
            deadband=row.deadband,
            heartbeat_ns=int(row.heartbeat_s * NS_PER_S),
            stale_after_ns=int(row.stale_after_s * NS_PER_S),
            text=is_text(row),
        )
        for i, row in enumerate(rows)
    ]
    tags += [
        Tag(name=name, index=i, asset=asset, unit=unit, description=description, virtual=True)
        for i, (name, asset, unit, description) in enumerate(virtual_tags(file.machine), len(tags))
    ]
    return tags


def make_table(tags: Iterable[Tag], index: Mapping[str, int] | None = None) -> TagTable:
    """Build the tag table; index: the numbers that the journal gave, for life."""
    if index is not None:
        tags = (dataclasses.replace(tag, index=index[tag.name]) for tag in tags)
    return TagTable(tags)
