"""The devices and the broker tried from here, as the gateway would, when it does not run.

Owns the bounds of a try: one connection for each, closed again, at most TRY_S. Reads, never writes; at a broker under a
client id of its own, so that nobody is thrown out.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from paho.mqtt.enums import MQTTProtocolVersion

from edge.config import Config, DeviceOptions
from edge.devices import make_source
from edge.doctor.finding import Finding
from edge.doctor.running import list_problems, next_for
from edge.errors import AndonError, Disconnected, Refused, Unreachable
from edge.mqtt.link import Link
from edge.mqtt.options import BrokerOptions
from edge.mqtt.wire import Closed, LinkEvent, Opened
from edge.sources import Source
from edge.sources.opcua import OpcuaOptions
from edge.sources.replay import ReplayOptions
from plant.batch import BAD
from plant.texts import Texts

TRY_S: Final = 20.0
VALUES_S: Final = 5.0
"""How long a connected device has to send a value of each tag."""
CLOSE_S: Final = 5.0
TCP_S: Final = 3.0
DEVICES_AT_ONCE: Final = 16

Told = Callable[[Finding], None]


async def examine(config: Config, told: Told) -> list[Finding]:
    """Try every device and the broker, side by side; each finding is also told as soon as it is there."""
    gate = asyncio.Semaphore(DEVICES_AT_ONCE)

    async def one(options: DeviceOptions) -> Finding:
        async with gate:
            finding = await try_device(config, options)
        told(finding)
        return finding

    findings = list(await asyncio.gather(*(one(options) for options in config.file.device)))
    broker = await try_broker(config)
    told(broker)
    return [*findings, broker]


async def try_device(config: Config, options: DeviceOptions) -> Finding:
    """Connect to a device, read each of its tags once, let go."""
    rows = config.rows_of(options.name)
    if isinstance(options, BrokerOptions):
        why = await knock(options, f"andon-doctor-{os.getpid()}")
        head = f"Device {options.name} comes through the broker {options.address}, which"
        if why is None:
            return _good(options, f"{head} accepts the gateway.")
        return _bad(options, f"{head} does not accept the gateway.", str(why))
    with tempfile.TemporaryDirectory(prefix="andon-doctor-") as folder:
        if isinstance(options, OpcuaOptions):
            unready = await asyncio.to_thread(_lend_certificates, config, options, Path(folder) / "pki")
            if unready is not None:
                return unready
            options = options.model_copy(update={"pki_dir": Path("pki")})
        index = {row.tag: i for i, row in enumerate(rows)}
        source = make_source(options, rows, index, Texts(), Path(folder), {})
        try:
            async with asyncio.timeout(TRY_S):
                await source.connect()
                if isinstance(options, ReplayOptions):
                    return _good(options, f"Device {options.name} replays {options.path}, which can be read.")
                good = await _values(source, len(rows))
        except TimeoutError:
            return _bad(options, f"Device {options.name} did not answer within {TRY_S:g} s.", "")
        except Refused as error:
            what = "check its user, certificate and permissions; `andon cert list` shows whom the gateway trusts"
            cause = str(error).partition(": it was copied to")[0]
            return _bad(options, f"Device {options.name} and the gateway do not accept each other.", cause, what)
        except (Unreachable, Disconnected) as error:
            return _bad(options, f"Device {options.name} gives no data.", await _with_tcp(options, str(error)))
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await source.close()
        problems = {rows[tag].tag: why for tag, why in source.problems.items()}
    return _judge(options, len(rows), good, problems)


def _lend_certificates(config: Config, options: OpcuaOptions, folder: Path) -> Finding | None:
    """Copy the certificates to `folder`: asking must leave no trace in the gateway's own."""
    if options.security_policy == "None":
        return None
    pki = config.state_dir / options.pki_dir
    try:
        if pki.is_dir():
            shutil.copytree(pki, folder)
    except (OSError, shutil.Error) as error:
        return _bad(options, f"The certificates in {pki} cannot be read.", str(error), "run this as the gateway's user")
    if options.certificate is None and not (pki / "own" / "private").is_dir():
        return Finding(
            kind="device",
            name=options.name,
            state="note",
            sentence=f"Device {options.name} cannot be tried yet: the gateway has no certificate of its own.",
            next_step="make it with `andon cert create`, then let the server trust it",
        )
    return None


async def _values(source: Source, tags: int) -> int:
    """Read until each tag had a value, has a problem or VALUES_S are over; return how many had a good one."""
    good = np.zeros(tags, np.bool_)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(VALUES_S):
            while tags and np.count_nonzero(good) + len(source.problems) < tags:
                batch = await source.read()
                good[batch.tag[batch.quality != BAD]] = True
    return int(np.count_nonzero(good))


def _judge(options: DeviceOptions, tags: int, good: int, problems: Mapping[str, str]) -> Finding:
    head = f"Device {options.name} answers; {good} of {tags} tags have a value"
    if problems:
        cause = list_problems(problems)
        return _bad(options, f"{head}, {len(problems)} have a problem.", cause, next_for(options.type))
    if not tags:
        return Finding(
            kind="device", name=options.name, state="note",
            sentence=f"Device {options.name} answers, but no row of tags.csv reads from it.",
        )  # fmt: skip
    if good < tags:
        cause = f"the others sent nothing within {VALUES_S:g} s"
        return _bad(options, f"{head}.", cause, "check that the device runs; then " + next_for(options.type))
    return _good(options, f"{head}.")


def _good(options: DeviceOptions, sentence: str) -> Finding:
    return Finding(kind="device", name=options.name, state="ok", sentence=sentence)


def _bad(options: DeviceOptions, sentence: str, cause: str, next_step: str = "") -> Finding:
    next_step = next_step or "check its power, network, and host and port in gateway.toml"
    return Finding(kind="device", name=options.name, state="act", sentence=sentence, cause=cause, next_step=next_step)


async def _with_tcp(options: DeviceOptions, why: str) -> str:
    """Add to a reason whether anybody listens at the address: it tells a wrong configuration from a cut cable."""
    found = [f"{host}:{port} {await tcp(host, port)}" for host, port in addresses(options)]
    return "; ".join([why, *found])


def addresses(options: DeviceOptions) -> Sequence[tuple[str, int]]:
    """Return where a device listens on TCP, nothing if it does not."""
    if isinstance(options, OpcuaOptions):
        from urllib.parse import urlsplit

        url = urlsplit(options.url)
        return [(url.hostname or "", url.port or 4840)]
    if getattr(options, "transport", "tcp") in {"tcp", "rtu_over_tcp"}:
        found: Sequence[tuple[str, int]] = getattr(options, "addresses", ())
        return found
    return []


async def tcp(host: str, port: int) -> str:
    """Say in three words whether a TCP connection is possible."""
    try:
        async with asyncio.timeout(TCP_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "does not answer TCP"
    except OSError as error:
        return f"refuses TCP ({os.strerror(error.errno) if error.errno and error.errno > 0 else error})"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return "answers TCP"


async def try_broker(config: Config) -> Finding:
    """Connect to the broker as the gateway would, under another client id, and leave at once."""
    options = config.file.mqtt
    if not options.enabled:
        return Finding(kind="broker", state="note", sentence="No broker: [mqtt] is switched off.")
    name = f"{options.client_id or f'andon-{config.file.gateway.name}'}-doctor-{os.getpid()}"
    why = await knock(options, name)
    if why is None:
        as_whom = f" as {options.user}" if options.user else ""
        return Finding(
            kind="broker", name=options.address, state="ok",
            sentence=f"The broker {options.address} accepts the gateway{as_whom}.",
        )  # fmt: skip
    refused = isinstance(why, Refused)
    return Finding(
        kind="broker",
        name=options.address,
        state="act",
        sentence=f"The broker {options.address} {'refuses the gateway' if refused else 'cannot be reached'}.",
        cause=str(why),
        next_step="check user, password_file and the access rules at the broker"
        if refused
        else "check that the broker runs, and host, port and tls in [mqtt]",
    )


async def knock(options: BrokerOptions, client_id: str) -> AndonError | None:
    """Return why a broker does not accept a connection, None if it does."""
    versions = [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311]
    if options.protocol != "auto":
        versions = [MQTTProtocolVersion.MQTTv5 if options.protocol == "5" else MQTTProtocolVersion.MQTTv311]
    why: AndonError | None = None
    for version in versions:
        closed = await _knock(options, client_id, version)
        if closed is None:
            return None
        why = why if why is not None and closed.unanswered else closed.error
        if not (closed.unanswered or closed.version_unknown):
            return why
    return why


async def _knock(options: BrokerOptions, client_id: str, version: MQTTProtocolVersion) -> Closed | None:
    answer: asyncio.Future[Closed | None] = asyncio.get_running_loop().create_future()

    def take(events: Sequence[LinkEvent]) -> None:
        for event in events:
            if isinstance(event, Opened | Closed) and not answer.done():
                answer.set_result(event if isinstance(event, Closed) else None)

    link = Link(options, client_id, version, None, take)
    link.start()
    try:
        async with asyncio.timeout(TRY_S):
            closed = await answer
        if closed is None:
            link.goodbye()
    except TimeoutError:
        return Closed(Unreachable(f"{options.address} does not answer within {TRY_S:g} s"), False, False)
    finally:
        await link.close()
    return closed
