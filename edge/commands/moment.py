"""A time as a person writes it on a command line."""

from datetime import UTC, datetime, timedelta

import click

NS_PER_MS = 1_000_000
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> int:
    """Parse `2026-11-20T06:00` (local time if it has no offset), `now`, or `-2h`, `-30m`, `-1d` from now, as ns UTC.

    Raises click.BadParameter.
    """
    now = datetime.now(UTC)
    try:
        if text == "now":
            found = now
        elif text.startswith("-") and text[-1] in UNITS:
            found = now - timedelta(**{UNITS[text[-1]]: float(text[1:-1])})
        else:
            found = datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time: write 2026-11-20T06:00, -2h, -30m, -1d or now") from error
    return int(found.timestamp() * 1000) * NS_PER_MS
