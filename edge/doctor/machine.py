"""This computer: is its clock right, has its disk room, is the journal sound, are certificates about to expire?"""

import contextlib
import ctypes
import ctypes.util
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.commands.cert import EXPIRY_WARNING, Kept, kept, read_certificate
from edge.config import Config
from edge.doctor.finding import Finding
from edge.doctor.running import CLOCK_BACK_S, clock_back
from edge.errors import AndonError, StorageError
from edge.sources.opcua import OpcuaOptions
from edge.store import Places, open_offline
from edge.terminal import size
from plant.instant import NS_PER_S

TIME_ERROR: Final = 5
STA_UNSYNC: Final = 0x0040
"""adjtimex(2): the clock is not synchronised. Every NTP daemon sets and clears this flag of the kernel."""
SYNCHRONISED_FILE: Final = Path("/run/systemd/timesync/synchronized")
ERROR_S_MAX: Final = 1.0
JOURNAL_CHECK_BYTES_MAX: Final = 2_000_000_000
_NTP: Final = "set up a time server (chrony, or NTP= in /etc/systemd/timesyncd.conf) that this network reaches"


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), with room for what later kernels append."""

    _fields_ = [
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("constant", ctypes.c_long),
        ("precision", ctypes.c_long), ("tolerance", ctypes.c_long), ("rest", ctypes.c_byte * 256),
    ]  # fmt: skip


def clock(newest: int, now: int) -> list[Finding]:
    """Judge the clock. newest: ns UTC of the newest thing that was stored, 0 = nothing. now: ns UTC."""
    findings = [_synchronised()]
    if newest > now + CLOCK_BACK_S * NS_PER_S:
        findings.append(clock_back(newest, now))
    return findings


def _synchronised() -> Finding:
    said = kernel_clock()
    if said is None:
        if SYNCHRONISED_FILE.exists():
            return Finding(kind="clock", state="ok", sentence="The clock follows a time server.")
        return Finding(
            kind="clock", state="note", sentence="Whether the clock follows a time server cannot be seen from here."
        )
    synchronised, error_s = said
    if not synchronised:
        return Finding(
            kind="clock",
            state="act",
            sentence="The clock follows no time server: the times of readings and alarms will drift.",
            next_step=_NTP,
        )
    if error_s > ERROR_S_MAX:
        return Finding(
            kind="clock",
            state="act",
            sentence=f"The clock follows a time server, but may be {error_s:.1f} s wrong.",
            cause="the time server has not been reached for long",
            next_step=_NTP,
        )
    return Finding(
        kind="clock",
        state="ok",
        sentence=f"The clock follows a time server and is right within {error_s * 1000:.0f} ms.",
    )


def kernel_clock() -> tuple[bool, float] | None:
    """Return whether the kernel's clock is synchronised and its greatest error in s; None where it cannot be asked."""
    try:
        libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        timex = _Timex(modes=0)
        state = libc.adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    return state != TIME_ERROR and not timex.status & STA_UNSYNC, timex.maxerror / 1e6


def disk(config: Config) -> Finding:
    """Judge the disk against the budget of the ring, for a gateway that does not run."""
    options, folder = config.file.storage, config.state_dir
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path("/"))
    held = _size(Places(folder).ring)
    free = shutil.disk_usage(there).free
    wanted = max(options.bytes_max - held, 0) + options.free_bytes_min
    head = f"The ring holds {size(held)} of {size(options.bytes_max)}, {size(free)} are free on the disk"
    if not os.access(there, os.W_OK):
        return Finding(
            kind="disk",
            state="act",
            sentence=f"{head}, but {there} cannot be written.",
            next_step="run this as the gateway's user, or correct the owner of the folder",
        )
    if free < wanted:
        return Finding(
            kind="disk",
            state="act",
            sentence=f"{head}: {size(wanted - free)} too few for the rest of its budget.",
            next_step="lower [storage] bytes_max, or give it a larger disk; until then the oldest readings go early",
        )
    return Finding(kind="disk", state="ok", sentence=f"{head}, enough for the rest of its budget.")


def _size(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            total += path.stat().st_size
    return total


def journal(config: Config) -> Finding:
    """Read the journal of a gateway that does not run, whole."""
    path = Places(config.state_dir).journal
    if not path.exists():
        return Finding(
            kind="journal", state="note", sentence=f"There is no journal yet: {path} is made at first start."
        )
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as opened:
            sound = "ok"
            if path.stat().st_size <= JOURNAL_CHECK_BYTES_MAX:
                (sound,) = opened.execute("PRAGMA quick_check(1)").fetchone()
            (events,) = opened.execute("SELECT count(*) FROM events").fetchone()
    except (sqlite3.Error, OSError) as error:
        sound, events = str(error), 0
    if sound != "ok":
        return Finding(
            kind="journal",
            state="act",
            sentence=f"The journal {path} cannot be read.",
            cause=str(sound),
            next_step="start the gateway: it sets a damaged journal aside and restores its backup",
        )
    return Finding(kind="journal", state="ok", sentence=f"The journal is sound and holds {events:,} events.")


def newest_stored(state_dir: Path) -> int:
    """Return the time of the newest reading of a gateway that does not run, ns UTC; 0 if there is none to be read."""
    if not Places(state_dir).ring.is_dir():
        return 0
    try:
        with open_offline(state_dir) as store:
            rows = store.query("SELECT epoch_us(max(time)) FROM readings").rows
    except StorageError:
        return 0
    return int(rows[0][0] or 0) * 1000 if rows else 0


def certificates(config: Config, now: datetime | None = None) -> list[Finding]:
    """Return a finding per certificate that has expired or soon will, and one for all others."""
    now = now or datetime.now(UTC)
    findings: list[Finding] = []
    good: list[Kept] = []
    try:
        for one in _all(config):
            age = one.age(now)
            if age and one.room in {"own", "trusted", "issuers"}:
                findings.append(_aged(one, age))
            elif one.room != "rejected":
                good.append(one)
    except AndonError as error:
        findings.append(Finding(kind="certificate", state="act", sentence=str(error)))
    if good:
        first = min(good, key=lambda one: one.certificate.not_valid_after_utc)
        count = "1 certificate is" if len(good) == 1 else f"{len(good)} certificates are"
        sentence = (
            f"{count} valid for longer than {EXPIRY_WARNING.days} days; the first to expire is {first.path.name} on "
            f"{first.certificate.not_valid_after_utc:%Y-%m-%d}."
        )
        findings.append(Finding(kind="certificate", state="ok", sentence=sentence))
    return findings


def _aged(one: Kept, age: str) -> Finding:
    whose = {"own": "Our certificate", "trusted": "The trusted certificate", "issuers": "The issuer's certificate"}
    what = {
        "own": "make a new one (`andon cert create`, or your authority) and let the other side trust it",
        "trusted": "renew it on the server, then `andon cert trust` the new one",
        "issuers": "get the new one from the authority",
    }
    return Finding(
        kind="certificate",
        name=one.path.name,
        state="act",
        sentence=f"{whose[one.room]} {one.path} ({one.certificate.subject.rfc4514_string()}) {age}.",
        next_step=what[one.room],
    )


def _all(config: Config) -> Iterator[Kept]:
    """Yield every certificate that the configuration names or its folders hold, each file once."""
    seen: set[Path] = set()
    for one in _found(config):
        if one.path not in seen:
            seen.add(one.path)
            yield one


def _found(config: Config) -> Iterator[Kept]:
    for device in config.file.device:
        if isinstance(device, OpcuaOptions):
            yield from kept(config.state_dir / device.pki_dir)
            yield from _named("own", (device.certificate, device.user_certificate))
        else:
            yield from _named("own", (getattr(device, "certificate_file", None),))
            yield from _named("issuers", (getattr(device, "ca_file", None),))
    yield from _named("own", (config.file.mqtt.certificate_file,))
    yield from _named("issuers", (config.file.mqtt.ca_file,))


def _named(room: str, paths: Iterable[Path | None]) -> Iterator[Kept]:
    for path in paths:
        found = None if path is None else read_certificate(path)
        if path is not None and found is not None:
            yield Kept(room, path, found)
