"""`andon probe`: what stands in the registers of a Modbus device, under every type and order.

Given a value that somebody reads off the machine, it names address, type and order; `--scan` finds which registers
there are. Only reads, never writes.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.commands import EXIT_FAILED, Progress, config_option, failed, json_option, progress, sentence
from edge.commands.register_scan import Answer, Range, Scan
from edge.commands.registers import (
    ORDERS,
    WIDE_TYPES,
    Match,
    Number,
    decode,
    find_matches,
    is_clear,
    size_of,
    text_of,
)
from edge.errors import AndonError, ConfigError, Disconnected, Refused, Unreachable

if TYPE_CHECKING:
    from edge.sources.modbus_link import Link
    from edge.sources.modbus_options import ModbusOptions

AREAS = ("holding", "input", "coil", "discrete")
SCAN_COUNT = 10_000
SILENCES_MAX = 5
"""So many requests in a scan may stay without a reply, or end the connection."""
BUSY_TRIES = 3
BUSY_PAUSE_S = 0.5
MATCHES_SHOWN = 8
TABLE_WIDTH_MIN = 112
ILLEGAL_FUNCTION, BUSY, NO_REPLY = 1, (5, 6), 0
GATEWAY = (10, 11)


@dataclass(slots=True)
class Device:
    """Asks one unit of one device, politely. what: how messages call it. Addresses count as those of its tags do."""

    options: "ModbusOptions"
    unit_id: int
    area: str
    pause_s: float
    link: "Link | None" = None
    answered: bool = False
    silences: int = 0

    @property
    def what(self) -> str:
        from edge.sources.modbus_link import address_name

        return f"unit {self.unit_id} at {address_name(self.options)}"

    async def ask(self, start: int, count: int) -> Answer:
        """Read; return registers, or the code of an exception (NO_REPLY for silence). Raises Unreachable, Refused."""
        from edge.sources.modbus_wire import EXCEPTIONS, MalformedReply, ReplyTimeout

        for _ in range(BUSY_TRIES):
            try:
                answer = await self._read(start, count)
            except ReplyTimeout as error:
                if not self.answered and count > 1 and await self.ask(start, 1):
                    return NO_REPLY  # it lives: some devices say nothing where others answer with an exception
                self._silent(f"{self.what} does not answer within {self.options.timeout_ms} ms", error)
                return NO_REPLY
            except Disconnected as error:
                self._silent(f"{self.what}: {error}", error)
                await self.close()
                return NO_REPLY
            except MalformedReply as error:
                raise Unreachable(f"{self.what}: {error}; it does not speak Modbus as expected") from error
            if isinstance(answer, int):
                if answer in GATEWAY:
                    raise Refused(f"{self.what}: exception {answer}, {EXCEPTIONS[answer]}")
                if answer == ILLEGAL_FUNCTION:
                    raise Refused(f"{self.what} has no area {self.area!r}: exception 1, {EXCEPTIONS[1]}")
                if answer in BUSY:
                    await asyncio.sleep(BUSY_PAUSE_S)
                    continue
            self.answered = True
            return answer
        raise Unreachable(f"{self.what} stays busy: exception {answer}, {EXCEPTIONS[answer]}")  # type: ignore[index]

    async def _read(self, start: int, count: int) -> Answer:
        from edge.sources.modbus_link import open_link, read_registers

        if self.link is None:
            self.link = await open_link(self.options)
        elif self.pause_s:
            await asyncio.sleep(self.pause_s)
        first = start - self.options.first_address
        answer = await read_registers(self.options, self.unit_id, self.area, first, count, self.link)
        return answer if isinstance(answer, int) else [int(word) for word in answer]

    def _silent(self, what: str, cause: Exception) -> None:
        self.silences += 1
        if not self.answered or self.silences > SILENCES_MAX:
            raise Unreachable(what) from cause

    async def close(self) -> None:
        if self.link is not None:
            link, self.link = self.link, None
            await link.close()


@dataclass(slots=True)
class Probed:
    """What a device showed: registers (or bits) by address, ranges, and what fits an expected value."""

    what: str
    area: str
    words: Mapping[int, int]
    ranges: list[Range]
    requests: int
    longest: int
    complete: bool
    asked: tuple[int, int] = (0, 0)
    matches: list[Match] = field(default_factory=list)


async def probe_device(device: Device, start: int, count: int, requests_max: int, tell: Progress) -> Probed:
    """Read `count` registers from `start`, around what is illegal. Raises Unreachable or Refused."""
    bits = device.area in ("coil", "discrete")
    block = device.options.coils_per_read_max if bits else device.options.registers_per_read_max
    base = device.options.first_address
    scan = Scan(device.ask, max(start, base), min(start + count, 65_536 + base), block, requests_max, tell)
    try:
        await scan.run()
    finally:
        await device.close()
    asked = (scan.first, scan.end - 1)
    return Probed(
        device.what, device.area, scan.words, scan.ranges(), scan.requests, scan.longest, scan.complete, asked
    )


def expectation(text: str, tolerance: float | None) -> tuple[float, float]:
    """Return the expected value and its tolerance; default: half of its last digit. Raises click.UsageError."""
    try:
        number = Decimal(text.replace(",", "."))
        value = float(number)
        exponent = number.as_tuple().exponent
    except InvalidOperation as error:
        raise click.UsageError(f"--expect {text!r} is no number") from error
    if not isinstance(exponent, int) or value == 0:
        raise click.UsageError("--expect needs a number that is not 0: zeros are everywhere")
    return value, 0.5 * 10.0 ** min(exponent, 0) if tolerance is None else tolerance


def modbus_options(target: str, folder: Path | None, given: dict[str, Any]) -> "ModbusOptions":
    """Return how to reach a device: host[:port], a serial port, or the name of a configured one. Raises ConfigError."""
    from pydantic import ValidationError

    from edge.commands.devices import find_device, read_gateway
    from edge.sources.modbus_options import ModbusOptions

    values: dict[str, Any] = {"type": "modbus", "name": "probe", "transport": given["transport"]}
    try:
        device = find_device(read_gateway(folder), target)
    except ConfigError:
        if folder is not None:
            raise
        device = None
    if isinstance(device, ModbusOptions):
        return device.model_copy(update={"timeout_ms": given["timeout_ms"] or device.timeout_ms})
    if target.startswith("/") or given["transport"] == "rtu":
        values |= {"transport": "rtu", "serial_port": target}
        values |= {key: given[key] for key in ("baudrate", "parity", "stopbits") if given[key] is not None}
    else:
        host, colon, port = target.rpartition(":") if target.count(":") == 1 else (target, "", "")
        if colon and not port.isdigit():
            raise click.UsageError(f"{target!r} is neither host, host:port, /dev/tty... nor a configured Modbus device")
        values |= {"host": host.strip("[]"), "port": int(port) if port else 502}
    try:
        return ModbusOptions.model_validate(
            values | ({"timeout_ms": given["timeout_ms"]} if given["timeout_ms"] else {})
        )
    except ValidationError as error:
        raise click.UsageError("; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())) from error


def what_to_do(error: AndonError) -> str:
    """Return what to try next, in a sentence."""
    text = str(error)
    if "does not answer within" in text:
        return "check the unit id (--unit; behind a gateway each device has its own), its cable, and --timeout-ms"
    if "exception 10" in text or "exception 11" in text:
        return "the gateway lives, the unit behind it does not answer: check --unit, the serial cable and baud rate"
    if "no area" in text:
        return f"try another one: --area {', '.join(AREAS)}"
    if "be reached" in text or "no connection" in text or "no Modbus" in text:
        return "check address and port (Modbus TCP listens on 502), the firewall, and how many clients the device takes"
    return ""


@click.command()
@click.argument("target")
@config_option
@click.option("--unit", type=click.IntRange(0, 255), help="Unit id. Default: 1, or the configured device's.")
@click.option("--area", type=click.Choice(AREAS), default="holding", show_default=True)
@click.option("--start", type=click.IntRange(0, 65_535), default=0, show_default=True, help="First protocol address.")
@click.option("--count", type=click.IntRange(1, 65_536), help="Registers (or bits). Default: 10; with --scan 10000.")
@click.option("--expect", "expected", help="A value that the machine shows now: which registers hold it, and how?")
@click.option("--tolerance", type=click.FloatRange(0), help="Default: half of the last digit of --expect.")
@click.option("--scan", is_flag=True, help="Find out which registers there are, within --requests.")
@click.option("--requests", "requests_max", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--pause-ms", type=click.IntRange(0, 60_000), default=10, show_default=True, help="Between two requests.")
@click.option("--timeout-ms", type=click.IntRange(10, 60_000), help="Time for a reply. Default: 1000.")
@click.option("--transport", type=click.Choice(["tcp", "udp", "rtu", "rtu_over_tcp"]), default="tcp", show_default=True)
@click.option("--baudrate", type=int, help="Of a serial port. Default: 19200.")
@click.option("--parity", type=click.Choice(["none", "even", "odd"]), help="Of a serial port. Default: even.")
@click.option("--stopbits", type=click.Choice(["1", "2"]), callback=lambda _c, _p, value: value and int(value))
@json_option
def probe(
    target: str,
    folder: Path | None,
    unit: int | None,
    area: str,
    start: int,
    count: int | None,
    expected: str | None,
    tolerance: float | None,
    scan: bool,
    requests_max: int,
    pause_ms: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Read registers of a Modbus device: TARGET is host[:port], a serial port, or the name of a configured device.

    Shows each register under every type and order. Addresses count from 0: register 40001 of a manual is holding 0.
    """
    wanted = expectation(expected, tolerance) if expected is not None else None
    if wanted is not None and area in ("coil", "discrete"):
        raise click.UsageError(f"--expect is for registers; a {area} is one bit")
    count = count or (SCAN_COUNT if scan else 10)
    try:
        options = modbus_options(target, folder, given)
        pause_s = max(pause_ms, options.pause_between_requests_ms) / 1000
        device = Device(options, options.unit_id if unit is None else unit, area, pause_s)
        with progress() as tell:
            limit = requests_max if scan else min(2 * count + 20, requests_max)
            found = asyncio.run(probe_device(device, start, count, limit, tell))
    except AndonError as error:
        if isinstance(error, ConfigError):
            raise failed(error) from error
        words = type(error)(sentence(error).replace("device probe at ", ""))
        raise failed(words, what_to_do(error)) from error
    if wanted is not None:
        found.matches = find_matches(found.words, *wanted)
    if as_json:
        click.echo(json.dumps(as_data(found, wanted), indent=1))
    else:
        from edge.commands.probe_tables import print_probed

        print_probed(found, wanted, scan=scan)
    if not found.words or (wanted is not None and not found.matches):
        raise click.exceptions.Exit(EXIT_FAILED)


def as_data(found: Probed, wanted: tuple[float, float] | None) -> dict[str, Any]:
    """Return everything as plain data; numbers that JSON does not know are texts."""
    from edge.sources.modbus_wire import EXCEPTIONS

    bits = found.area in ("coil", "discrete")
    return {
        "device": found.what,
        "area": found.area,
        "requests": found.requests,
        "longest_read": found.longest,
        "complete": found.complete,
        "ranges": [
            {"first": one.first, "last": one.last, "state": one.state}
            | ({"exception": one.code, "meaning": EXCEPTIONS.get(one.code, "no reply")} if one.state != "legal" else {})
            for one in found.ranges
        ],
        "registers": [
            {"address": address, "value": word} if bits else _register(found.words, address)
            for address, word in sorted(found.words.items())
        ],
    } | (
        {"matches": [_match(found.area, one) for one in found.matches], "clear": is_clear(found.matches)}
        if wanted
        else {}
    )


def _register(words: Mapping[int, int], address: int) -> dict[str, Any]:
    decodings = {
        kind: {order: _plain(value) for order in ORDERS if (value := decode(words, address, kind, order)) is not None}
        for kind in WIDE_TYPES
    }
    return {
        "address": address,
        "hex": f"{words[address]:04x}",
        "uint16": words[address],
        "int16": decode(words, address, "int16", "ABCD"),
        "text": text_of(words[address]),
        "decodings": {kind: values for kind, values in decodings.items() if values},
    }


def _plain(value: Number) -> Number | str:
    return value if isinstance(value, int) or value - value == 0 else str(value)


def _match(area: str, match: Match) -> dict[str, Any]:
    return {
        "address": f"{area}/{match.address}",
        "type": match.type,
        "also": match.also,
        "order": match.order if size_of(match.type) > 1 or match.order != "ABCD" else "",
        "scale": match.scale,
        "raw": match.raw,
        "value": match.value,
        "evidence_bits": round(match.evidence, 1),
    }
