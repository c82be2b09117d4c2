"""Devices with habits: backup addresses, addresses from 1, unit ids that are not echoed, UDP that loses datagrams."""

import asyncio
import re

import pytest
from modbus_peers import Asked, Scripted, source
from modbus_rigs import UdpCable
from modbus_rtu_peers import rtu_options, rtu_source, tcp_slave
from pydantic import ValidationError

from edge.errors import Disconnected, Unreachable
from edge.sources.modbus import ModbusOptions, parse_point
from edge.sources.modbus_blocks import Limits, plan, split
from edge.sources.modbus_options import shared_lines
from edge.sources.supervisor import Supervisor
from plant.batch import GOOD, Batch


def values(batch: Batch) -> dict[int, float]:
    return {int(t): float(v) for t, v, q in zip(batch.tag, batch.value, batch.quality, strict=True) if q == GOOD}


def tens(asked: Asked) -> bytes:
    """A second device that can be told from the first: register i holds 10 * i."""
    return asked.registers(10 * i for i in range(asked.start, asked.start + asked.count))


ROW = [("holding/5", "uint16", "")]


# --- backup address


async def test_the_backup_address_is_read_while_the_first_is_down_and_left_when_it_is_back():
    async with Scripted() as first, Scripted(tens) as backup:
        modbus = source(first.port, ROW, backup_host="127.0.0.1", backup_port=backup.port, backup_return_s=0.1)
        await modbus.connect()
        assert values(await modbus.read()) == {0: 5.0}
        assert modbus.recovery == ""
        await first.stop()
        with pytest.raises(Disconnected):
            await modbus.read()
        await modbus.connect()
        assert values(await modbus.read()) == {0: 50.0}
        assert re.fullmatch(
            rf"Device press is read at its backup address 127\.0\.0\.1:{backup.port} since 20\S+Z: device press at "
            rf"127\.0\.0\.1:{first.port} cannot be reached: .*\. The first one is tried again every 0\.1 s\.",
            modbus.recovery,
        )
        await first.start()
        async with asyncio.timeout(10):
            batches = [await modbus.read()]
            while values(batches[-1]) != {0: 5.0}:
                batches.append(await modbus.read())
        assert all(values(batch) == {0: 50.0} for batch in batches[:-1])  # no reading was lost by the change
        assert modbus.recovery == ""
        await modbus.close()


async def test_a_first_address_that_accepts_and_says_nothing_is_no_reason_to_stay():
    async with Scripted(lambda asked: None) as first, Scripted(tens) as backup:
        modbus = source(
            first.port, ROW, backup_host="127.0.0.1", backup_port=backup.port, backup_return_s=0.1, timeout_ms=150
        )
        await modbus.connect()
        with pytest.raises(Disconnected, match="does not answer"):
            await modbus.read()
        await modbus.connect()
        for _ in range(30):
            assert values(await modbus.read()) == {0: 50.0}
        assert "does not answer within 150 ms" in modbus.recovery
        assert first.connections >= 2  # it was asked in the meantime
        first.script = None
        async with asyncio.timeout(10):
            while values(await modbus.read()) != {0: 5.0}:
                pass
        await modbus.close()


async def test_the_status_of_the_device_says_that_its_backup_is_in_use():
    async with Scripted() as first, Scripted(tens) as backup:
        modbus = source(first.port, ROW, backup_host="127.0.0.1", backup_port=backup.port)
        await first.stop()
        batches: asyncio.Queue[Batch] = asyncio.Queue(1)
        supervisor = Supervisor(modbus, tags={0: "t"}, put=batches.put, signal=lambda signal: None)
        running = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(10):
            while values(await batches.get()) != {0: 50.0}:
                pass
        assert supervisor.status.state == "connected"
        assert "is read at its backup address" in supervisor.status.sentence
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_when_both_addresses_are_down_both_are_named_and_either_will_do():
    async with Scripted() as first, Scripted(tens) as backup:
        modbus = source(first.port, ROW, backup_host="127.0.0.1", backup_port=backup.port)
        await first.stop()
        await backup.stop()
        with pytest.raises(Unreachable, match=rf"{first.port} cannot be reached.*{backup.port} cannot be reached"):
            await modbus.connect()
        await backup.start()
        await modbus.connect()
        assert values(await modbus.read()) == {0: 50.0}
        await modbus.close()
        assert modbus.recovery == ""
        await first.start()
        await backup.stop()
        await modbus.connect()
        assert values(await modbus.read()) == {0: 5.0}
        await modbus.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
async def test_a_first_address_that_is_no_modbus_device_or_hangs_up_leads_to_the_backup(answer):
    async with Scripted() as first, Scripted(tens) as backup:

        def script(asked: Asked) -> bytes:
            if answer is None:
                for writer in first._writers:
                    writer.transport.abort()
            return answer or b""

        first.script = script
        modbus = source(first.port, ROW, backup_host="127.0.0.1", backup_port=backup.port)
        await modbus.connect()
        with pytest.raises(Disconnected):
            await modbus.read()
        await modbus.connect()
        assert values(await modbus.read()) == {0: 50.0}
        await modbus.close()


async def test_a_backup_that_breaks_off_does_not_put_off_the_return():
    async with Scripted(lambda asked: None) as first, Scripted(tens) as backup:
        modbus = source(
            first.port, ROW, backup_host="127.0.0.1", backup_port=backup.port, backup_return_s=0.5, timeout_ms=150
        )
        await modbus.connect()
        with pytest.raises(Disconnected):
            await modbus.read()
        first.script = None
        came: dict[int, float] = {}
        async with asyncio.timeout(20):
            while came != {0: 5.0}:  # the backup never holds for as long as the first address is left alone
                await modbus.connect()
                for _ in range(5):
                    came = values(await modbus.read())
        await modbus.close()


async def test_closing_while_the_first_address_is_tried_leaves_nothing_open():
    async with Scripted() as first, Scripted(tens) as backup:
        modbus = source(first.port, ROW, backup_host="127.0.0.1", backup_port=backup.port, backup_return_s=0.1)
        await first.stop()
        await modbus.connect()
        first.script = lambda asked: None
        await first.start()
        async with asyncio.timeout(10):
            while not first.asked:
                await modbus.read()
        await modbus.close()
        assert modbus._route._returning is None


async def test_a_serial_line_has_a_backup_server_too():
    async with tcp_slave() as (_, first), tcp_slave() as (_, backup):
        modbus = rtu_source(
            ROW, transport="rtu_over_tcp", port=first.port, backup_host="127.0.0.1", backup_port=backup.port
        )
        await modbus.connect()
        await first.cut()
        with pytest.raises(Disconnected):
            for _ in range(5):
                await modbus.read()
        await modbus.connect()
        assert values(await modbus.read()) == {0: 5.0}
        assert modbus.recovery
        await modbus.close()


# --- UDP


async def test_a_lost_datagram_is_asked_again():
    plc = UdpCable()
    await plc.start()
    modbus = rtu_source(ROW, timeout_ms=200, **plc.reached)
    await modbus.connect()
    plc.lost = 1
    for _ in range(4):
        assert values(await modbus.read()) == {0: 5.0}
    assert modbus.problems == {}
    assert plc.lost == 0
    await modbus.close()
    await plc.cut()


async def test_nobody_at_an_udp_port_is_unreachable():
    plc = UdpCable()
    await plc.start()
    await plc.cut()
    modbus = rtu_source(ROW, **plc.reached)
    with pytest.raises(Unreachable, match=r"device meter at .* cannot be reached"):
        await modbus.connect()
    await modbus.close()


# --- habits


async def test_a_device_that_answers_with_another_unit_id_is_read_if_the_configuration_says_so():
    def script(asked: Asked) -> bytes:
        return asked.frame(bytes([asked.function, 2, 0, 77]), unit=255)

    async with Scripted(script) as plc:
        strict = source(plc.port, ROW)
        await strict.connect()
        assert values(await strict.read()) == {}
        await strict.close()
        tolerant = source(plc.port, ROW, check_unit_id=False)
        await tolerant.connect()
        assert values(await tolerant.read()) == {0: 77.0}
        await tolerant.close()


async def test_addresses_that_count_from_one_reach_the_register_below_and_are_named_as_written():
    async with Scripted(illegal={8}) as plc:
        modbus = source(plc.port, [("holding/1", "uint16", ""), ("holding/9", "uint16", "")], first_address=1, gap=0)
        await modbus.connect()
        assert values(await modbus.read()) == {0: 0.0}
        assert "illegal data address holding/9 at" in modbus.problems[1]
        await modbus.close()
    device = ModbusOptions(type="modbus", name="press", host="h", first_address=1)
    assert parse_point(0, "holding/65536", "uint16", "", 0, device).offset == 65535
    for address, sentence in [
        ("holding/0", "begin with 1 (first_address = 1)"),
        ("holding/65537", "beyond address 65536"),
        ("40108", "write the address instead: holding/108"),
    ]:
        with pytest.raises(ValueError) as error:
            parse_point(0, address, "uint16", "", 0, device)
        assert sentence in str(error.value)


async def test_coils_are_read_from_address_zero_where_a_device_knows_no_other_start():
    def script(asked: Asked) -> bytes:
        if asked.function > 2:
            return asked.right()
        bits = bytearray((asked.count + 7) // 8)
        for i in (300, 17):
            if i < asked.count:
                bits[i // 8] |= 1 << i % 8
        return asked.frame(bytes([asked.function, len(bits)]) + bytes(bits)) if asked.start == 0 else asked.exception(2)

    async with Scripted(script) as plc:
        rows = [
            ("coil/17", "bool", ""),
            ("coil/18", "bool", ""),
            ("coil/300", "bool", ""),
            ("holding/40", "uint16", ""),
        ]
        modbus = source(plc.port, rows, coils_from_zero=True)
        await modbus.connect()
        assert values(await modbus.read()) == {0: 1.0, 1: 0.0, 2: 1.0, 3: 40.0}
        assert [(a.function, a.start, a.count) for a in plc.asked] == [(1, 0, 301), (3, 40, 1)]
        await modbus.close()
    device = ModbusOptions(type="modbus", name="press", host="h", coils_from_zero=True, coils_per_read_max=100)
    with pytest.raises(ValueError, match=r"coil/100 cannot be read.*at most 100 bits"):
        parse_point(0, "coil/100", "bool", "", 0, device)
    near, far = (parse_point(i, f"coil/{a}", "bool", "", 0, device) for i, a in enumerate((3, 90)))
    (block,) = plan([near, far], Limits(125, 100, 0, coils_from_zero=True))
    assert [(b.start, b.count) for b in split(block)] == [(0, 4), (0, 91)]


# --- options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"transport": "tcp"}, 'host is missing; transport "tcp" needs it'),
        ({"transport": "rtu"}, 'serial_port is missing; transport "rtu" needs it'),
        ({"transport": "rtu", "serial_port": "/dev/ttyS0", "host": "h"}, "host does not belong to"),
        ({"transport": "udp", "host": "h", "baudrate": 9600}, "baudrate does not belong to"),
        ({"transport": "rtu", "serial_port": "/dev/ttyS0", "requests_in_flight": 2}, "requests_in_flight must be 1"),
        ({"transport": "rtu_over_tcp", "host": "h", "check_unit_id": False}, "check_unit_id = false is not possible"),
        ({"host": "h", "backup_port": 503}, "backup_port stands without backup_host"),
        ({"host": "h", "backup_host": "h"}, "are the first address again"),
        ({"transport": "rtu", "serial_port": "/dev/ttyS0", "parity": "mark"}, "'none', 'even' or 'odd'"),
    ],
)
def test_options_that_do_not_fit_the_transport_get_a_sentence(options, sentence):
    with pytest.raises(ValidationError) as error:
        ModbusOptions.model_validate({"type": "modbus", "name": "m"} | options)
    assert sentence in str(error.value)


def test_a_serial_line_has_no_unit_zero():
    with pytest.raises(ValueError, match="unit id 0 is a broadcast"):
        parse_point(0, "0/holding/1", "uint16", "", 0, rtu_options(serial_port="/dev/ttyS0"))


def test_two_devices_on_one_serial_line_are_found_whatever_the_port_is_called(tmp_path):
    port = tmp_path / "ttyS0"
    port.touch()
    (tmp_path / "by-id").symlink_to(port)
    devices = [
        rtu_options(serial_port=str(port), name="a"),
        ModbusOptions(type="modbus", name="tcp", host="h"),
        rtu_options(serial_port=str(tmp_path / "by-id"), name="b"),
        rtu_options(serial_port=str(tmp_path / "ttyS1"), name="c"),
        rtu_options(transport="rtu_over_tcp", host="h", name="d"),
        rtu_options(transport="rtu_over_tcp", host="x", backup_host="h", name="e"),
        ModbusOptions(type="modbus", name="tcp2", host="h"),
    ]
    assert shared_lines(devices) == [
        (2, "serial_port", f"device 'b' uses the serial line {tmp_path}/by-id of device 'a'"),
        (5, "host", "device 'e' uses the serial line h:502 of device 'd'"),
    ]
