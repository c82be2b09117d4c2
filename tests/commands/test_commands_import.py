"""Tag lists of other gateways: what is converted is right, what is not is told with its line, nothing is guessed."""

import csv
import io
import json
import tomllib

import pytest
from commands_peers import call
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import load
from edge.errors import ConfigError
from edge.importers import kepware, neuron, telegraf, thingsboard
from edge.importers.reference import address
from edge.importers.result import ImportFault, Lines

HEADER = (
    "Tag Name,Address,Data Type,Respect Data Type,Client Access,Scan Rate,Scaling,Raw Low,Raw High,Scaled Low,"
    "Scaled High,Scaled Data Type,Clamp Low,Clamp High,Eng Units,Description,Negate Value"
)
KEPWARE = f"""\ufeff{HEADER}
"Running",000001,Boolean,1,RO,100,,,,,,,,,,"Drive runs",
"Door",100003,Boolean,1,RO,100,,,,,,,,,,,
"Axis.Speed",300010,Short,1,RO,250,,,,,,,,,"1/min","Spindle speed",
"Axis.Position",400011,Float,1,R/W,250,,,,,,,,,mm,,
"Pressure",40005,Word,1,R/W,1000,Linear,0,27648,0,250,Double,1,1,bar,,
"Energy",400020,DWord,1,RO,5000,,,,,,,,,kWh,,
"Count",400030,LLong,1,RO,100,,,,,,,,,,,
"Setpoint",400040,BCD,1,R/W,100,,,,,,,,,,,
"Fault.3",400050.3,Boolean,1,RO,100,,,,,,,,,,,
"Recipe",400100.20H,String,1,RO,1000,,,,,,,,,,,
"Batch",400120.10L,String,1,RO,1000,,,,,,,,,,,
"Inverted",400060,Short,1,RO,100,,,,,,,,,,,1
"Flow",400061,Word,1,RO,100,Square Root,0,100,0,10,Float,0,0,,,
"History",400070 [10],Word Array,1,RO,100,,,,,,,,,,,
"Reset",000009,Boolean,1,WO,100,,,,,,,,,,,
"Bit",400050,Boolean,1,RO,100,,,,,,,,,,,
"Far",470000,Word,1,RO,100,,,,,,,,,,,
"Odd",D100,Word,1,RO,100,,,,,,,,,,,
"Day",400080,Date,1,RO,100,,,,,,,,,,,
"""


def rows_of(result):
    return {row["tag"]: row for row in result.rows}


def left_of(result):
    return {left.what: left for left in result.left}


def picked(row, *columns):
    return tuple(row[column] for column in columns)


# -- Kepware -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "where", "kind", "order"),
    [
        ("press.Running", "coil/0", "bool", ""),
        ("press.Door", "discrete/2", "bool", ""),
        ("press.Axis.Speed", "input/9", "int16", ""),
        ("press.Axis.Position", "holding/10", "float32", ""),
        ("press.Pressure", "holding/4", "uint16", ""),
        ("press.Energy", "holding/19", "uint32", ""),
        ("press.Count", "holding/29", "int64", ""),
        ("press.Setpoint", "holding/39", "bcd16", ""),
        ("press.Fault.3", "holding/49.3", "bool", ""),
        ("press.Recipe", "holding/99", "string:20", ""),
        ("press.Batch", "holding/119", "string:10", "BADC"),
    ],
)
def test_a_register_number_of_kepware_becomes_a_protocol_address(tag, where, kind, order):
    row = rows_of(kepware.convert(KEPWARE, "press"))[tag]
    assert picked(row, "address", "type", "order") == (where, kind, order)


def test_kepware_scaling_units_and_limits_are_kept():
    rows = rows_of(kepware.convert(KEPWARE, "press"))
    pressure = rows["press.Pressure"]
    assert float(pressure["scale"]) == pytest.approx(250 / 27648)
    assert picked(pressure, "offset", "unit", "minimum", "maximum", "period_ms") == ("", "bar", "0", "250", "1000")
    assert picked(rows["press.Inverted"], "scale", "minimum") == ("-1", "")
    assert rows["press.Axis.Speed"]["description"] == "Spindle speed"


def test_linear_scaling_with_an_offset_maps_both_ends():
    text = f'{HEADER}\n"T",400001,Word,1,RO,100,Linear,4000,20000,-50,150,Float,0,0,,,\n'
    (row,) = kepware.convert(text, "d").rows
    scale, offset = float(row["scale"]), float(row["offset"])
    assert 4000 * scale + offset == pytest.approx(-50)
    assert 20000 * scale + offset == pytest.approx(150)


@pytest.mark.parametrize(
    ("name", "line", "why"),
    [
        ("Flow", 14, "square root"),
        ("History", 15, "array"),
        ("Reset", 16, "write-only"),
        ("Bit", 17, "bit"),
        ("Far", 18, "no register number"),
        ("Odd", 19, "no register number"),
        ("Day", 20, "no counterpart"),
    ],
)
def test_what_kepware_has_and_we_cannot_express_is_told_with_its_line(name, line, why):
    left = left_of(kepware.convert(KEPWARE, "press"))[name]
    assert left.line == line
    assert why in left.why


def test_the_order_of_registers_is_never_guessed():
    result = kepware.convert(KEPWARE, "press")
    assert {ask.what for ask in result.asks} == {"Axis.Position", "Energy", "Count"}
    assert all("andon probe" in ask.why for ask in result.asks)


def test_opcua_addresses_of_kepware_are_taken_as_they_are():
    text = f'{HEADER}\n"A.T1",ns=2;s=Channel1.Device1.T1,Float,1,RO,100\n"S",ns=2;s=Name,String,1,RO,100\n'
    result = kepware.convert(text, "cnc")
    assert [picked(r, "tag", "address", "type") for r in result.rows] == [
        ("cnc.A.T1", "ns=2;s=Channel1.Device1.T1", ""),
        ("cnc.S", "ns=2;s=Name", "string"),
    ]
    assert result.devices[0].keys["type"] == "opcua"


# -- ThingsBoard -------------------------------------------------------------------------------------------------

THINGSBOARD = """{
  "master": {
    "slaves": [
      {
        "host": "10.0.0.5", "port": 5021, "type": "tcp", "method": "socket", "unitId": 3,
        "timeout": 35, "pollPeriod": 5000, "byteOrder": "BIG", "wordOrder": "LITTLE",
        "attributes": [
          {"tag": "serial", "type": "string", "functionCode": 4, "objectsCount": 4, "address": 100}
        ],
        "timeseries": [
          {"tag": "temperature", "type": "16int", "functionCode": 3, "objectsCount": 1, "address": 0, "divider": 10},
          {"tag": "energy", "type": "32float", "functionCode": 4, "objectsCount": 2, "address": 12, "multiplier": 2},
          {"tag": "relay", "type": "bits", "functionCode": 1, "objectsCount": 1, "address": 7},
          {"tag": "lamps", "type": "bits", "functionCode": 1, "objectsCount": 8, "address": 8},
          {"tag": "half", "type": "8int", "functionCode": 3, "objectsCount": 1, "address": 9},
          {"tag": "short", "type": "32int", "functionCode": 3, "objectsCount": 1, "address": 9},
          {"tag": "set", "type": "16int", "functionCode": 6, "objectsCount": 1, "address": 9}
        ]
      },
      {
        "host": "10.0.0.5", "port": 5021, "type": "tcp", "method": "socket", "unitId": 4,
        "byteOrder": "LITTLE", "wordOrder": "LITTLE",
        "timeseries": [
          {"tag": "power", "type": "32uint", "functionCode": 3, "objectsCount": 2, "address": 2},
          {"tag": "level", "type": "16uint", "functionCode": 3, "objectsCount": 1, "address": 4}
        ]
      },
      {
        "host": "10.0.0.6", "port": 502, "type": "tcp", "unitId": 1,
        "timeseries": [{"tag": "power", "type": "32uint", "functionCode": 3, "objectsCount": 2, "address": 2}]
      }
    ]
  }
}
"""


def test_thingsboard_registers_keep_their_unit_order_and_factor():
    result = thingsboard.convert(THINGSBOARD, "plc")
    rows = rows_of(result)
    assert picked(rows["plc.temperature"], "address", "type", "scale", "order") == ("3/holding/0", "int16", "0.1", "")
    assert picked(rows["plc.energy"], "address", "type", "scale", "order") == ("3/input/12", "float32", "2", "CDAB")
    assert picked(rows["plc.relay"], "address", "type") == ("3/coil/7", "bool")
    assert picked(rows["plc.serial"], "address", "type") == ("3/input/100", "string:8")
    assert picked(rows["plc.power"], "address", "order", "device") == ("4/holding/2", "DCBA", "plc")
    assert rows["plc.level"]["order"] == "BADC"


def test_slaves_at_one_address_are_one_device_and_others_another():
    result = thingsboard.convert(THINGSBOARD, "plc")
    assert [(d.keys["name"], d.keys["host"], d.keys["port"]) for d in result.devices] == [
        ("plc", "10.0.0.5", 5021),
        ("plc_2", "10.0.0.6", 502),
    ]
    assert rows_of(result)["plc_2.power"]["order"] == ""
    assert [ask.what for ask in result.asks] == ["power"]


def test_what_thingsboard_has_and_we_cannot_express_is_told_with_its_line():
    left = left_of(thingsboard.convert(THINGSBOARD, "plc"))
    assert {name: found.line for name, found in left.items()} == {"lamps": 14, "half": 15, "short": 16, "set": 17}
    assert "8 bits" in left["lamps"].why
    assert "writes" in left["set"].why


def test_thingsboard_opcua_nodes_by_id_are_taken_and_paths_are_not():
    text = json.dumps(
        {
            "server": {
                "url": "opc.tcp://10.0.0.9:4840/x",
                "security": "Basic256Sha256",
                "identity": {"type": "username", "username": "u", "password": "p"},
            },
            "mapping": [
                {
                    "timeseries": [
                        {"key": "speed", "type": "identifier", "value": "${ns=2;i=5}"},
                        {"key": "load", "type": "path", "value": "${Root.Objects.Load}"},
                    ],
                    "attributes": [{"key": "name", "path": "${ns=2;s=Machine.Name}"}],
                }
            ],
        },
        indent=1,
    )
    result = thingsboard.convert(text, "cnc")
    assert {row["tag"]: row["address"] for row in result.rows} == {
        "cnc.speed": "ns=2;i=5",
        "cnc.name": "ns=2;s=Machine.Name",
    }
    assert "andon browse" in left_of(result)["load"].why
    (device,) = result.devices
    assert device.keys["user"] == "u"
    assert "p" not in {str(value) for value in device.keys.values()}
    assert any("password_file" in what for what in device.todo)


# -- Telegraf ----------------------------------------------------------------------------------------------------

TELEGRAF = """
[agent]
  interval = "10s"

[[inputs.modbus]]
  name = "meter"
  slave_id = 2
  timeout = "1s"
  controller = "tcp://10.0.0.7:1502"
  discrete_inputs = [ { name = "start", address = [0]} ]
  coils = [ { name = "motor", address = [3]} ]
  holding_registers = [
    { name = "voltage", byte_order = "AB", data_type = "FIXED", scale=0.1, address = [0]},
    { name = "energy", byte_order = "CDAB", data_type = "UFIXED", scale=0.001, address = [5,6]},
    { name = "power", byte_order = "ABCD", data_type = "FLOAT32-IEEE", scale=1.0, address = [8,9]},
    { name = "total", byte_order = "HGFEDCBA", data_type = "UINT64", scale=1.0, address = [20,21,22,23]},
    { name = "swapped", byte_order = "BA", data_type = "INT16", scale=1.0, address = [30]},
    { name = "unordered", data_type = "INT32", scale=1.0, address = [32,33]},
    { name = "gap", byte_order = "ABCD", data_type = "INT32", scale=1.0, address = [40,42]},
    { name = "byte", byte_order = "AB", data_type = "INT8L", scale=1.0, address = [44]},
  ]

[[inputs.modbus]]
  controller = "file:///dev/ttyUSB0"
  baud_rate = 19200
  parity = "E"
  configuration_type = "request"
  [[inputs.modbus.request]]
    slave_id = 7
    byte_order = "DCBA"
    register = "input"
    measurement = "pump"
    fields = [
      { address=0, name="rpm", type="INT16" },
      { address=1, name="flow", type="FLOAT32", scale=0.5 },
      { address=3, name="skipped", type="UINT32", omit=true },
    ]

[[inputs.modbus]]
  controller = "tcp://10.0.0.8:502"
  configuration_type = "metric"
  [inputs.modbus.workarounds]
    pause_after_connect = "200ms"
  [[inputs.modbus.metric]]
    slave_id = 1
    byte_order = "ABCD"
    measurement = "plc"
    fields = [
      { register="coil", address=0, name="run"},
      { register="holding", address=12, name="alarm", type="BIT", bit=4 },
      { register="holding", address=20, name="batch", type="STRING", length=8 },
    ]

[[inputs.opcua]]
  endpoint = "opc.tcp://10.0.0.9:4840"
  security_policy = "None"
  nodes = [ {name="temp", namespace="3", identifier_type="s", identifier="Temperature"} ]
  [[inputs.opcua.group]]
    name = "axis"
    namespace = "2"
    identifier_type = "i"
    nodes = [ {name="x", identifier="1001"}, {name="y"} ]
"""


def test_telegraf_registers_of_every_style_are_converted():
    rows = rows_of(telegraf.convert(TELEGRAF, "t"))
    expected = {
        "t_1.start": ("2/discrete/0", "bool", "", ""),
        "t_1.motor": ("2/coil/3", "bool", "", ""),
        "t_1.voltage": ("2/holding/0", "int16", "", "0.1"),
        "t_1.energy": ("2/holding/5", "uint32", "CDAB", "0.001"),
        "t_1.power": ("2/holding/8", "float32", "ABCD", ""),
        "t_1.total": ("2/holding/20", "uint64", "DCBA", ""),
        "t_1.swapped": ("2/holding/30", "int16", "DCBA", ""),
        "t_1.unordered": ("2/holding/32", "int32", "", ""),
        "t_2.pump.rpm": ("7/input/0", "int16", "DCBA", ""),
        "t_2.pump.flow": ("7/input/1", "float32", "DCBA", "0.5"),
        "t_3.plc.run": ("1/coil/0", "bool", "", ""),
        "t_3.plc.alarm": ("1/holding/12.4", "bool", "", ""),
        "t_3.plc.batch": ("1/holding/20", "string:16", "", ""),
    }
    found = {tag: picked(row, "address", "type", "order", "scale") for tag, row in rows.items() if "opc" not in tag}
    assert expected.items() <= found.items()
    assert "t_2.pump.skipped" not in rows


def test_telegraf_nodes_take_the_defaults_of_their_group():
    rows = rows_of(telegraf.convert(TELEGRAF, "t"))
    assert rows["t_4.temp"]["address"] == "ns=3;s=Temperature"
    assert rows["t_4.axis.x"]["address"] == "ns=2;i=1001"


def test_telegraf_connections_become_devices():
    first, serial, third, server = (d.keys for d in telegraf.convert(TELEGRAF, "t").devices)
    assert (first["host"], first["port"], first["unit_id"], first["timeout_ms"]) == ("10.0.0.7", 1502, 2, 1000)
    assert first["period_ms"] == 10_000
    assert (serial["transport"], serial["serial_port"]) == ("rtu", "/dev/ttyUSB0")
    assert (serial["baudrate"], serial["parity"]) == (19200, "even")
    assert third["pause_after_connect_ms"] == 200
    assert server["url"] == "opc.tcp://10.0.0.9:4840"


def test_what_telegraf_has_and_we_cannot_express_is_told_with_its_line():
    result = telegraf.convert(TELEGRAF, "t")
    left = left_of(result)
    assert left["gap"].line == 19
    assert "not in a row" in left["gap"].why
    assert "INT8L" in left["byte"].why
    assert "missing" in left["axis.y"].why
    assert [ask.what for ask in result.asks] == ["unordered"]


# -- Neuron ------------------------------------------------------------------------------------------------------

NEURON = """{
 "nodes": [
  {"name": "plc", "plugin": "Modbus TCP", "params": {"host": "10.0.0.4", "port": 1502, "timeout": 3000},
   "groups": [
    {"group": "fast", "interval": 500, "tags": [
     {"name": "t1", "address": "1!400001", "attribute": 1, "type": 3},
     {"name": "t2", "address": "1!400002#L", "attribute": 3, "type": 4},
     {"name": "t3", "address": "2!300010#BB", "attribute": 1, "type": 9},
     {"name": "t4", "address": "1!400012#LB", "attribute": 1, "type": 6, "decimal": 0.1, "bias": -5},
     {"name": "t5", "address": "1!400014", "attribute": 1, "type": 9},
     {"name": "t6", "address": "1!400020.3", "attribute": 1, "type": 11},
     {"name": "t7", "address": "1!000001", "attribute": 3, "type": 11},
     {"name": "t8", "address": "1!400030.10L", "attribute": 1, "type": 13},
     {"name": "t9", "address": "1!400040#L", "attribute": 1, "type": 10},
     {"name": "w", "address": "1!400001", "attribute": 2, "type": 3},
     {"name": "d", "address": "1!400050.10D", "attribute": 1, "type": 13},
     {"name": "b", "address": "1!400060", "attribute": 1, "type": 14},
     {"name": "five", "address": "1!40001#B", "attribute": 1, "type": 4},
     {"name": "fivebit", "address": "1!40001", "attribute": 1, "type": 11}
    ]}
   ]}
 ]
}
"""


def test_neuron_addresses_keep_unit_order_bit_and_length():
    rows = rows_of(neuron.convert(NEURON, "plc"))
    found = {tag: picked(row, "address", "type", "order") for tag, row in rows.items()}
    assert found == {
        "plc.fast.t1": ("1/holding/0", "int16", ""),
        "plc.fast.t2": ("1/holding/1", "uint16", "BADC"),
        "plc.fast.t3": ("2/input/9", "float32", "ABCD"),
        "plc.fast.t4": ("1/holding/11", "uint32", "CDAB"),
        "plc.fast.t5": ("1/holding/13", "float32", ""),
        "plc.fast.t6": ("1/holding/19.3", "bool", ""),
        "plc.fast.t7": ("1/coil/0", "bool", ""),
        "plc.fast.t8": ("1/holding/29", "string:10", "BADC"),
        "plc.fast.t9": ("1/holding/39", "float64", "DCBA"),
        "plc.fast.five": ("1/holding/0", "uint16", ""),
    }
    assert picked(rows["plc.fast.t4"], "scale", "offset", "period_ms") == ("0.1", "-5", "500")


def test_what_neuron_has_and_we_cannot_express_is_told_with_its_line():
    result = neuron.convert(NEURON, "plc")
    assert {left.what: left.line for left in result.left} == {
        "fast.w": 15, "fast.d": 16, "fast.b": 17, "fast.fivebit": 19,
    }  # fmt: skip
    assert [ask.what for ask in result.asks] == ["fast.t5"]
    (device,) = result.devices
    assert (device.keys["host"], device.keys["port"], device.keys["timeout_ms"]) == ("10.0.0.4", 1502, 3000)


def test_a_bare_list_of_neuron_tags_and_opcua_addresses_are_understood():
    text = json.dumps(
        [
            {"name": "a", "address": "2!Machine.Speed", "attribute": 1, "type": 9},
            {"name": "b", "address": "2!1001", "attribute": 1, "type": 13},
        ]
    )
    result = neuron.convert(text, "cnc")
    assert next(row["address"] for row in result.rows) == "ns=2;s=Machine.Speed"
    assert result.devices[0].keys["type"] == "opcua"


# -- the command -------------------------------------------------------------------------------------------------


def test_what_the_command_writes_is_a_tag_list_that_only_lacks_what_the_file_did_not_say(tmp_path):
    source, out = tmp_path / "tags.json", tmp_path / "config" / "tags.csv"
    out.parent.mkdir()
    source.write_text(NEURON)
    told = call("import", "neuron", source, "--device", "plc", "--out", out)
    assert told.exit_code == 0
    assert "not converted: line 15: fast.w" in told.stderr
    site = '[site]\nenterprise = "a"\nsite = "b"\n[gateway]\nname = "g"\n[mqtt]\nenabled = false\n'
    (out.parent / "gateway.toml").write_text(site + told.stdout)
    (out.parent / "alarms.csv").write_text("alarm,tag,condition,limit\n")
    (out.parent / "shifts.toml").write_text("")
    with pytest.raises(ConfigError) as refused:
        load(out.parent)
    (problem,) = refused.value.problems
    assert "plc.fast.t5" in problem.what
    assert "order" in problem.what
    out.write_text(out.read_text().replace("1/holding/13,float32,,", "1/holding/13,float32,CDAB,"))
    assert len(load(out.parent).tags) == 10


def test_without_a_file_everything_goes_to_standard_output_as_one_tag_list(tmp_path):
    source = tmp_path / "kep.csv"
    source.write_text(KEPWARE, encoding="utf-8")
    told = call("import", "kepware", source, "--device", "press")
    assert told.exit_code == 0
    body = [line for line in told.stdout.splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(io.StringIO("\n".join(body))))
    assert len(rows) == 12
    section = "\n".join(line.removeprefix("# ") for line in told.stdout.splitlines() if line.startswith("# "))
    assert tomllib.loads(section[section.index("[[device]]") :])["device"][0]["host"] == "HOST"
    assert "count from 1" in told.stderr
    assert "12 rows converted, 3 of them miss something; 7 left out" in told.stderr


def test_json_says_everything(tmp_path):
    source = tmp_path / "tb.json"
    source.write_text(THINGSBOARD)
    record = json.loads(call("import", "thingsboard", source, "--device", "plc", "--json").stdout)
    assert len(record["rows"]) == 7
    assert {item["what"] for item in record["left_out"]} == {"lamps", "half", "short", "set"}
    assert record["asks"][0]["what"] == "power"


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("kepware", "a,b\n1,2\n", "Tag Name"),
        ("kepware", "Tag Name,Data Type\n", "Address"),
        ("thingsboard", "{", "no JSON"),
        ("thingsboard", '{"a": 1}', "neither"),
        ("thingsboard", "[]", "no connector"),
        ("telegraf", "= 1", "no TOML"),
        ("telegraf", "[agent]\n", "inputs.modbus"),
        ("neuron", "{", "no JSON"),
        ("neuron", "{}", "no tags"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_was_expected(tmp_path, form, text, says):
    source = tmp_path / "file"
    source.write_text(text)
    told = call("import", form, source, "--device", "d")
    assert told.exit_code == 1
    assert says in told.stderr
    assert told.stdout == ""


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    source, out = tmp_path / "tags.json", tmp_path / "tags.csv"
    source.write_text(NEURON)
    out.write_text("mine\n")
    told = call("import", "neuron", source, "--device", "plc", "--out", out)
    assert told.exit_code == 2
    assert out.read_text() == "mine\n"


def test_tags_with_the_same_name_get_a_number():
    text = f'{HEADER}\n"A B",400001,Word\n"A_B",400002,Word\n'
    assert [row["tag"] for row in kepware.convert(text, "d").rows] == ["d.A_B", "d.A_B_2"]


@pytest.mark.parametrize("number", ["", "1", "4000", "200001", "400000", "465537", "4x0001", "4000001"])
def test_what_is_no_register_number_is_refused(number):
    with pytest.raises(ValueError, match=r"number|digits|areas"):
        address(number)


@pytest.mark.parametrize(
    ("number", "is_there"),
    [
        ("40001", "holding/0"),
        ("400001", "holding/0"),
        ("465536", "holding/65535"),
        ("000017", "coil/16"),
        ("10001", "discrete/0"),
    ],
)
def test_register_numbers_count_from_one(number, is_there):
    assert address(number) == is_there


def test_lines_are_found_one_after_the_other():
    lines = Lines('{"a": 1}\n{"b": 2}\n{"a": 3}\n')
    assert [lines.of("a"), lines.of("a"), lines.of("b"), lines.of("zzz")] == [1, 3, 2, 0]


def test_a_fault_is_no_program_error():
    assert issubclass(ImportFault, Exception)


# -- files that people have edited by hand -----------------------------------------------------------------------

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70_000), st.floats(allow_nan=False, width=32), st.text(max_size=8),
    st.just([]), st.just({}), st.just([1, "x"]), st.just({"a": 1}), st.sampled_from(["1!400001", "ns=2;i=5", "tcp://h:x"]),
)  # fmt: skip


def places(data, path=()):
    """Return the path of every value in a document."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] * bool(path) + [found for key, value in inner for found in places(value, (*path, key))]


def changed(data, path, value):
    """Return a document with another value in one place."""
    data = json.loads(json.dumps(data))
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return data


def survives(convert, text):
    """A hand-edited file gives a result or a reason, never an error of the program."""
    try:
        result = convert(text, "d")
    except ImportFault:
        return
    for device in result.devices:
        assert device.toml()
    assert all(row["tag"] and row["address"] for row in result.rows)


@given(st.data(), ODD)
@settings(max_examples=150, deadline=None)
def test_any_value_in_a_thingsboard_file_gives_a_result_or_a_reason(data, value):
    document = json.loads(THINGSBOARD)
    path = data.draw(st.sampled_from(places(document)))
    survives(thingsboard.convert, json.dumps(changed(document, path, value), indent=1))


OPCUA_CONNECTOR = {
    "server": {"url": "opc.tcp://h:1", "security": "None", "pollPeriodInMillis": 500, "enableSubscriptions": False,
               "identity": {"username": "u"}},
    "mapping": [{"timeseries": [{"key": "speed", "type": "identifier", "value": "${ns=2;i=5}"}], "attributes": []}],
}  # fmt: skip


@given(st.data(), ODD)
@settings(max_examples=80, deadline=None)
def test_any_value_in_an_opcua_connector_gives_a_result_or_a_reason(data, value):
    path = data.draw(st.sampled_from(places(OPCUA_CONNECTOR)))
    survives(thingsboard.convert, json.dumps(changed(OPCUA_CONNECTOR, path, value), indent=1))


@given(st.data(), ODD)
@settings(max_examples=150, deadline=None)
def test_any_value_in_a_neuron_file_gives_a_result_or_a_reason(data, value):
    document = json.loads(NEURON)
    path = data.draw(st.sampled_from(places(document)))
    survives(neuron.convert, json.dumps(changed(document, path, value), indent=1))


@given(st.data(), ODD)
@settings(max_examples=200, deadline=None)
def test_any_value_in_a_telegraf_file_gives_a_result_or_a_reason(data, value):
    document = tomllib.loads(TELEGRAF)
    path = data.draw(st.sampled_from(places(document)))
    survives(telegraf.of_document, changed(document, path, value))


@given(st.lists(st.lists(st.one_of(st.sampled_from(KEPWARE.split(",")), st.text(max_size=6)), max_size=18), max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_row_in_a_kepware_file_gives_a_result_or_a_reason(rows):
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    survives(kepware.convert, f"{HEADER}\n{file.getvalue()}")
