"""The configuration folder: gateway.toml, tags.csv, alarms.csv, shifts.toml -> one checked `Config`."""

from edge.config.load import load
from edge.config.model import Config, DeviceOptions, TagRow
from edge.config.points import is_text, points

__all__ = ["Config", "DeviceOptions", "TagRow", "is_text", "load", "points"]
