"""The sample configuration fits the simulated plant: every address, every code table, every port."""

import csv
import tomllib
from pathlib import Path

import pytest

from edge.alarms.options import AlarmOptions
from edge.alarms.rules import COLUMNS, parse_rule, warnings
from edge.config.load import load
from edge.config.model import GatewayOptions, SiteOptions
from edge.outlets.options import MqttOptions
from edge.production.options import MachineOptions, ShiftsOptions, calendar_of, check_shifts
from edge.production.virtual import virtual_tags
from edge.simulator import layout
from edge.simulator.machine import PRESS_STATE_CODES, REASON_CODES, STATE_CODES
from edge.simulator.milling import MillingCell
from edge.simulator.plant import SimulatorOptions
from edge.simulator.recording import RECORDINGS_DIR, read
from edge.sources.modbus import ModbusOptions, parse_point
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_points import parse_node
from edge.store.options import StorageOptions
from edge.web.options import WebOptions
from plant.events import MachineState

CONFIG = Path(__file__).parents[2] / "config"
TOML = tomllib.loads((CONFIG / "gateway.toml").read_text())
SHIFTS = tomllib.loads((CONFIG / "shifts.toml").read_text())
DEVICES = {device["name"]: device for device in TOML["device"]}
MACHINES = {machine["name"]: MachineOptions(**machine) for machine in TOML["machine"]}
PLACES = {
    "cnc": {node.name: f"nsu={layout.CNC_URI};s={node.path}" for node in layout.CNC_NODES},
    "inspection": {node.name: f"nsu={layout.INSPECTION_URI};s={node.path}" for node in layout.INSPECTION_NODES},
    "press": {register.name: register.address for register in layout.PRESS_REGISTERS},
    "strip": {register.name: register.address for register in layout.STRIP_REGISTERS},
}


def rows(name):
    lines = [line for line in (CONFIG / name).read_text().splitlines() if line and not line.startswith("#")]
    return list(csv.DictReader(lines, strict=True))


TAGS = {row["tag"]: row for row in rows("tags.csv")}
ALARMS = rows("alarms.csv")


def options_of(name):
    kind = {"opcua": OpcuaOptions, "modbus": ModbusOptions}[DEVICES[name]["type"]]
    return kind(**DEVICES[name])


def test_the_configuration_loads_as_a_whole_without_a_warning():
    config = load(CONFIG)
    assert config.warnings == ()
    assert (len(config.tags), len(config.rules), len(config.file.machine)) == (len(TAGS), len(ALARMS), 3)


def test_every_section_is_understood():
    SiteOptions(**TOML["site"])
    GatewayOptions(**TOML["gateway"])
    StorageOptions(**TOML["storage"])
    MqttOptions(**TOML["mqtt"])
    WebOptions(**TOML["web"])
    AlarmOptions(**TOML["alarms"])
    assert {name: options_of(name).asset for name in DEVICES} == {
        "cnc": "milling/line1/cnc",
        "press": "pressing/line2/press",
        "strip": "finishing/line3/strip",
        "inspection": "finishing/line3/strip",
    }


def test_devices_point_at_the_ports_of_the_simulator():
    simulator = SimulatorOptions()
    for name, device in DEVICES.items():
        port = getattr(simulator, f"{name}_port")
        where = device.get("url", f"{device.get('host')}:{device.get('port')}")
        assert where.endswith(f"{simulator.host}:{port}"), name
    ports = [simulator.cnc_port, simulator.inspection_port, simulator.press_port, simulator.strip_port]
    ports += [simulator.control_port, TOML["mqtt"]["port"], TOML["web"]["port"]]
    assert len(set(ports)) == len(ports)


def test_the_tag_list_names_every_value_of_the_plant_at_its_place():
    places = {f"{plc}.{name}": place for plc, names in PLACES.items() for name, place in names.items()}
    assert {tag: row["address"] for tag, row in TAGS.items()} == places
    assert all(row["device"] == tag.split(".")[0] for tag, row in TAGS.items())
    assert all(row["asset"] == DEVICES[row["device"]]["asset"] for row in TAGS.values())
    assert all(row["description"] for row in TAGS.values())


@pytest.mark.parametrize("tag", [tag for tag, row in TAGS.items() if DEVICES[row["device"]]["type"] == "modbus"])
def test_modbus_tags_are_read_as_the_plant_writes_them(tag):
    row = TAGS[tag]
    registers = layout.PRESS_REGISTERS if row["device"] == "press" else layout.STRIP_REGISTERS
    register = next(register for register in registers if f"{row['device']}.{register.name}" == tag)
    period = int(row["period_ms"]) if row["period_ms"] else None
    point = parse_point(0, row["address"], row["type"], row["order"], period, options_of(row["device"]))
    assert (point.unit_id, point.area, point.offset, point.bit) == (
        register.unit_id,
        register.area,
        register.offset,
        register.bit,
    )
    assert row["type"] == register.type
    assert point.order == register.order
    if tag != "press.bearing_temperature":
        assert float(row["scale"] or 1) == register.scale


def test_the_bearing_is_read_in_celsius():
    row = TAGS["press.bearing_temperature"]
    for fahrenheit, celsius in ((32, 0), (212, 100), (104, 40)):
        assert fahrenheit * float(row["scale"]) + float(row["offset"]) == pytest.approx(celsius)


def test_opcua_tags_have_valid_addresses_and_text_is_said_to_be_text():
    for plc, nodes in (("cnc", layout.CNC_NODES), ("inspection", layout.INSPECTION_NODES)):
        for node in nodes:
            row = TAGS[f"{plc}.{node.name}"]
            assert parse_node(row["address"]).identifier == node.path
            assert row["type"] == ("string" if node.type == "String" else "")


def test_numbers_of_the_tag_list_make_sense():
    for tag, row in TAGS.items():
        for column in ("minimum", "maximum", "deadband", "heartbeat_s", "stale_after_s", "scale", "offset"):
            float(row[column] or 0)
        if row["minimum"] and row["maximum"]:
            assert float(row["minimum"]) < float(row["maximum"]), tag
        if row["stale_after_s"]:
            # A steady OPC UA value is repeated every repeat_ms; it must not count as silent in between.
            options = options_of(row["device"])
            expected_s = (getattr(options, "repeat_ms", 0) or options.period_ms) / 1000
            assert float(row["stale_after_s"]) >= 2 * expected_s, tag


@pytest.mark.parametrize("name", MACHINES)
def test_machines_map_the_codes_of_their_plcs(name):
    machine = MACHINES[name]
    codes = PRESS_STATE_CODES if name == "press" else STATE_CODES
    expected = {str(code): state for state, code in codes.items() if state is not MachineState.UNKNOWN}
    assert machine.states == expected
    assert machine.reasons == {str(code): reason for reason, code in REASON_CODES.items() if reason is not None}
    for field in ("state_tag", "reason_tag", "produced_tag", "rejected_tag", "order_tag", "product_tag"):
        assert getattr(machine, field) in TAGS
    assert machine.asset == DEVICES[name]["asset"]


def test_the_products_of_the_mill_have_their_own_ideal_cycles():
    cell = MillingCell(read(RECORDINGS_DIR / "milling/milling.parquet"), read(RECORDINGS_DIR / "milling/runs.parquet"))
    seen = set()
    for _ in range(800):
        seen.add(cell.values()["product"])
        cell.advance(1.0)
    assert seen == set(MACHINES["cnc"].products)


def test_every_alarm_is_a_rule_on_a_tag_that_exists_and_says_what_to_do():
    known = set(TAGS) | {name for name, *_ in virtual_tags(tuple(MACHINES.values()))}
    assert set(ALARMS[0]) <= set(COLUMNS)
    for row in ALARMS:
        rule = parse_rule(row)
        assert set(rule.tags()) <= known, rule.name
        assert rule.message, rule.name
        assert rule.cause, rule.name
        assert rule.consequence, rule.name
        assert rule.action, rule.name
        assert rule.respond_within_s > 0, rule.name
        assert warnings(rule) == [], rule.name
    assert len({row["alarm"] for row in ALARMS}) == len(ALARMS)


def test_the_alarms_that_every_plant_starts_with_are_there():
    rules = [parse_rule(row) for row in ALARMS]
    found = {(rule.tag, rule.condition, rule.limit, rule.priority) for rule in rules}
    assert ("press.bearing_temperature", "HH", 80.0, "critical") in found
    assert ("press.vibration", "H", 10.0, "medium") in found
    for machine in MACHINES:
        assert (f"{machine}.oee", "L", 0.75, "medium") in found


def test_shifts_fill_the_week_so_that_a_demonstration_is_always_inside_one():
    options = ShiftsOptions(**SHIFTS)
    zone = TOML["site"]["time_zone"]
    assert check_shifts(options, zone) == []
    minutes = sum((shift.end - shift.start) % 1440 for shift in options.shift)
    assert minutes == 1440
    assert all(len(shift.days) == 7 and not shift.assets and not shift.break_ for shift in options.shift)
    calendar_of(options, zone)
