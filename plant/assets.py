"""Asset paths: "area/line/cell", the ISA-95 hierarchy below the site. A prefix names everything under it."""

from collections.abc import Iterable


def is_within(asset: str, prefix: str) -> bool:
    """Tell whether `asset` is `prefix` or lies under it; "" is the whole site. "line1" does not hold "line10"."""
    return prefix in {"", asset} or asset.startswith(prefix + "/")


def closest(asset: str, prefixes: Iterable[str]) -> int:
    """Return the length of the longest prefix that holds `asset`: 0 for the whole site, -1 when none holds it.

    No prefixes at all mean the whole site.
    """
    prefixes = tuple(prefixes) or ("",)
    return max((len(prefix) for prefix in prefixes if is_within(asset, prefix)), default=-1)
