"""The configuration folder: gateway.toml, tags.csv, alarms.csv, shifts.toml -> one checked `Config`."""

from edge.config.load import load
from edge.config.model import Config, DeviceOptions, TagRow
from edge.config.points import is_text, points
from edge.config.tags import make_table, make_tags

__all__ = ["Config", "DeviceOptions", "TagRow", "is_text", "load", "make_table", "make_tags", "points"]
