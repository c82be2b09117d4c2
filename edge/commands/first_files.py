"""The texts of a first configuration, with comments for whoever edits them next. Pure; `edge.commands.init` asks."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.alarms import COLUMNS as ALARM_COLUMNS
from edge.commands.tag_rows import write_rows

SHIFTS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "none": (),
    "one": (("day", "06:00", "14:00"),),
    "two": (("early", "06:00", "14:00"), ("late", "14:00", "22:00")),
    "three": (("early", "06:00", "14:00"), ("late", "14:00", "22:00"), ("night", "22:00", "06:00")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was answered. device: the table [[device]] as it is written, empty for none. rows: of tags.csv."""

    enterprise: str
    site: str
    time_zone: str
    gateway: str
    state_dir: str
    broker: str
    shifts: str
    device: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, str]] = ()


def quoted(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)


def gateway_toml(answers: Answers) -> str:
    """Return gateway.toml."""
    host, _, port = answers.broker.partition(":")
    broker = f"enabled = true\nhost = {quoted(host)}\nport = {port or 1883}\n" if host else "enabled = false\n"
    device = "".join(f"{key} = {quoted(value)}\n" for key, value in answers.device.items())
    return f"""\
# Andon gateway. `andon check` names every mistake; docs/configuration.md has every key.
# Durations carry their unit in the name: _ms, _s, _minutes, _days. Paths are relative to this folder.

[site]
enterprise = {quoted(answers.enterprise)}  # first level of every MQTT topic
site = {quoted(answers.site)}  # second level
time_zone = {quoted(answers.time_zone)}  # for shifts and reports; everything stored is UTC

[gateway]
name = {quoted(answers.gateway)}  # unique at the site
state_dir = {quoted(answers.state_dir)}  # readings, events, certificates

[storage]
bytes_max = 10_000_000_000  # the readings take no more than this; the oldest go first
age_max_days = 90
free_bytes_min = 1_000_000_000  # so much of the disk stays free, whatever else fills it

[mqtt]
{broker}# tls = true, ca_file, user, password_file: for a broker elsewhere
# commands_enabled = true  # take acknowledgements; the broker's access control decides whose

[web]
host = "127.0.0.1"  # the local page
port = 8080

# ---- Devices: where values are read from. tags.csv says which values. --------------------------------------------
{_device_text(device)}
# ---- Machines: what OEE is counted for. Their tags must be in tags.csv. ------------------------------------------
#
# [[machine]]
# name = "press"
# asset = "pressing/line2/press"
# state_tag = "press.state"
# states = {{ "1" = "running", "2" = "idle", "3" = "setup", "4" = "down", "5" = "maintenance" }}
# produced_tag = "press.parts"
# rejected_tag = "press.rejects"
# ideal_cycle_s = 1.25
"""


def _device_text(device: str) -> str:
    if device:
        return f"\n[[device]]\n{device}"
    return """
# [[device]]
# name = "press"
# type = "modbus"  # or opcua, with url = "opc.tcp://192.168.0.10:4840"
# asset = "pressing/line2/press"  # area/line/cell
# host = "192.168.0.11"
# unit_id = 1
"""


def tags_csv(answers: Answers) -> str:
    """Return tags.csv."""
    file = io.StringIO(newline="")
    file.write(
        "# One row per value that is read. What the columns mean: docs/configuration.md, tags.csv.\n"
        "# address: OPC UA nsu=<uri>;s=<id>; Modbus [unit/]area/offset[.bit], the offset counts from 0;\n"
        "# type, order: Modbus only, e.g. float32 and CDAB (ask `andon probe --expect`); string for texts everywhere.\n"
    )
    write_rows(answers.rows, file)  # type: ignore[arg-type]
    if not answers.rows:
        name = str(answers.device.get("name", "press"))
        address = {"opcua": "nsu=urn:plc;s=Temperature,,,", "replay": "temperature,,,"}.get(
            str(answers.device.get("type")), "holding/100,float32,CDAB,"
        )
        file.write(f"# {name}.temperature,{name},{address},,Cel,-20,150,0.1,60,30,,,Oil temperature\n")
    return file.getvalue()


def alarms_csv() -> str:
    """Return alarms.csv without an alarm."""
    file = io.StringIO(newline="")
    file.write(
        "# An alarm is something that somebody must do something about: each row says what. See docs/alarms.md.\n"
        "# condition: HH H L LL, deviation, rate, discrete, stale, bad_quality; priority: critical high medium low.\n"
    )
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(ALARM_COLUMNS)
    example = {
        "alarm": "press.hot", "tag": "press.temperature", "condition": "HH", "limit": "80", "deadband": "2",
        "on_delay_s": "1", "off_delay_s": "5", "priority": "critical", "latch": "true",
        "message": "Oil of the press is too hot", "cause": "The cooler has failed",
        "consequence": "The pump is damaged", "action": "Stop the press and check the cooler", "respond_within_s": "60",
    }  # fmt: skip
    file.write("# ")
    writer.writerow([example.get(column, "") for column in ALARM_COLUMNS])
    return file.getvalue()


def shifts_toml(answers: Answers) -> str:
    """Return shifts.toml."""
    text = (
        "# Working time, in local time of the site; an end at or before the start lies on the next day.\n"
        "# Without a [[shift]] production is planned round the clock.\n"
    )
    for name, start, end in SHIFTS[answers.shifts]:
        text += f'\n[[shift]]\nname = "{name}"\nstart = "{start}"\nend = "{end}"\n'
        text += '# days = ["mon", "tue", "wed", "thu", "fri"]\n'
        text += '# break = [{ name = "lunch", start = "11:30", end = "12:00" }]\n'
    return text + (
        '\n# [[special_day]]\n# date = 2026-12-24\n# name = "Christmas Eve"\n# shifts = []\n'
        '\n# [[planned_stop]]\n# start = 2026-12-24T14:00:00\n# end = 2027-01-02T06:00:00\n# reason = "works holiday"\n'
    )


def files_of(answers: Answers) -> dict[str, str]:
    """Return the files of the configuration folder by name."""
    return {
        "gateway.toml": gateway_toml(answers),
        "tags.csv": tags_csv(answers),
        "alarms.csv": alarms_csv(),
        "shifts.toml": shifts_toml(answers),
    }
