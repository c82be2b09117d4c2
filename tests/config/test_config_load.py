"""A mistyped configuration: one sentence per mistake, with file and line, all at once."""

import csv
import io
import json
import re
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.cli import main
from edge.config import load
from edge.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "config"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SAMPLE, tmp_path / "config"))


def edit(folder: Path, file: str, old: str, new: str) -> int:
    """Replace the first occurrence and return the line on which it stands."""
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


def problems(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder)
    return [str(problem) for problem in caught.value.problems]


def test_the_sample_plant_is_valid():
    config = load(SAMPLE)
    assert [device.name for device in config.file.device] == ["cnc", "press", "strip", "inspection"]
    assert len(config.tags) > 50
    assert config.warnings == ()


CASES = [
    (
        "unknown key",
        "gateway.toml",
        "live_period_ms",
        "live_perod_ms",
        ["unknown key 'mqtt.live_perod_ms'", "did you mean 'live_period_ms'?"],
    ),
    (
        "unknown device key",
        "gateway.toml",
        "sampling_ms = 100",
        "samplng_ms = 100",
        ["unknown key 'device.1.samplng_ms'", "did you mean 'sampling_ms'?"],
    ),
    ("wrong type", "gateway.toml", "port = 8080", 'port = "high"', ["'web.port'", "valid integer", "'high'"]),
    ("out of range", "gateway.toml", "port = 8080", "port = 80800", ["'web.port'", "65535"]),
    ("unknown section", "gateway.toml", "[alarms]", "[alarm]", ["unknown key 'alarm'", "did you mean 'alarms'?"]),
    ("unknown kind of device", "gateway.toml", 'type = "opcua"', 'type = "opc"', ["type = opcua, modbus, mqtt"]),
    ("bad time zone", "gateway.toml", '"Europe/Berlin"', '"Europe/Berln"', ["no IANA time zone"]),
    ("name with a slash", "gateway.toml", 'site = "plant1"', 'site = "plant/1"', ["without spaces"]),
    (
        "password in the clear",
        "gateway.toml",
        'host = "127.0.0.1"\nport = 18830',
        'host = "10.0.0.9"\nuser = "a"\npassword_file = "gateway.toml"\nport = 18830',
        ["readable", "tls"],
    ),
    ("broken TOML", "gateway.toml", "[site]", "[site", ["not valid TOML"]),
    (
        "duplicate device",
        "gateway.toml",
        'name = "strip"\ntype',
        'name = "press"\ntype',
        ["device 'press' stands twice"],
    ),
    (
        "machine with an unknown tag",
        "gateway.toml",
        '"press.strokes"',
        '"press.stroke"',
        ["machine 'press'", "produced_tag", "did you mean 'press.strokes'?"],
    ),
    (
        "unreadable certificate",
        "gateway.toml",
        "sampling_ms = 100 ",
        'certificate = "missing.der"\nprivate_key = "missing.pem"\nsampling_ms = 100 ',
        ["missing.der", "cannot be read"],
    ),
    ("overlapping shifts", "shifts.toml", 'start = "14:00"', 'start = "13:00"', ["early", "late", "overlap"]),
    (
        "unknown key in shifts",
        "shifts.toml",
        'name = "early"',
        'nme = "early"',
        ["unknown key", "did you mean 'name'?"],
    ),
    (
        "mistyped break",
        "shifts.toml",
        "# break = [",
        "brake = [",
        ["unknown key 'shift.1.brake'", "did you mean 'break'?"],
    ),
    (
        "unknown key in a break",
        "shifts.toml",
        '# break = [{ name = "breakfast"',
        'break = [{ nme = "breakfast"',
        ["unknown key 'shift.1.break.1.nme'", "did you mean 'name'?"],
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_mistake_is_named_with_its_place(folder, file, old, new, expected):
    line = edit(folder, file, old, new)
    found = problems(folder)
    [hit] = [text for text in found if all(word in text for word in expected)]
    where = re.match(r"(.*?)(?::(\d+))?: ", hit)
    assert where[1].endswith(file)
    if where[2]:
        assert abs(int(where[2]) - line) <= new.count("\n")


TAG_CASES = [
    ("duplicate tag", lambda r: [r, r], ["already in line"]),
    ("unknown device", lambda r: [{**r, "device": "pres"}], ["unknown device 'pres'", "did you mean 'press'?"]),
    ("number expected", lambda r: [{**r, "scale": "a bit"}], ["scale must be a number", "'a bit'"]),
    ("nothing but a constant", lambda r: [{**r, "scale": "0"}], ["scale 0"]),
    ("range upside down", lambda r: [{**r, "minimum": "9", "maximum": "1"}], ["minimum 9 is above maximum 1"]),
    ("word order missing", lambda r: [{**r, "type": "float32", "order": ""}], ["order"]),
    ("bad address", lambda r: [{**r, "address": "hold/5"}], ["hold"]),
    ("bad name", lambda r: [{**r, "tag": "a b"}], ["a name has letters"]),
    ("name of a computed tag", lambda r: [{**r, "tag": "press.oee"}], ["computed tag"]),
]


@pytest.mark.parametrize(("rows", "expected"), [c[1:] for c in TAG_CASES], ids=[c[0] for c in TAG_CASES])
def test_a_mistake_in_the_tag_list_is_named_with_its_line(folder, rows, expected):
    good = {"tag": "press.extra", "device": "press", "address": "holding/100", "type": "uint16"}
    path = folder / "tags.csv"
    lines = path.read_text().rstrip("\n").split("\n")
    header = next(line for line in lines if line.startswith("tag,")).split(",")
    for row in rows(good):
        lines.append(",".join(row.get(column, "") for column in header))
    path.write_text("\n".join(lines) + "\n")
    hits = [text for text in problems(folder) if all(word in text for word in expected)]
    assert len(hits) == 1
    assert f"tags.csv:{len(lines)}: " in hits[0]


def test_unknown_tag_in_an_alarm_has_a_suggestion(folder):
    path = folder / "alarms.csv"
    lines = path.read_text().rstrip("\n").split("\n")
    header = next(line for line in lines if line.startswith("alarm,")).split(",")
    row = {"alarm": "x", "tag": "press.stroke", "condition": "H", "limit": "1"}
    path.write_text("\n".join([*lines, ",".join(row.get(column, "") for column in header)]) + "\n")
    [hit] = problems(folder)
    assert f"alarms.csv:{len(lines) + 1}: " in hit
    assert "did you mean 'press.strokes'?" in hit


def test_every_mistake_is_reported_at_once(folder):
    edit(folder, "gateway.toml", '"press.strokes"', '"press.stroke"')
    edit(folder, "shifts.toml", 'start = "14:00"', 'start = "13:00"')
    with (folder / "tags.csv").open("a") as file:
        file.write("lonely,nowhere,holding/1\n")
    found = problems(folder)
    assert len(found) >= 3
    assert {Path(text.split(":")[0]).name for text in found} >= {"gateway.toml", "tags.csv", "shifts.toml"}


def test_a_mistake_in_gateway_toml_hides_none_in_the_other_files(folder):
    lines = [
        edit(folder, "gateway.toml", "live_period_ms", "live_perod_ms"),
        edit(
            folder,
            "tags.csv",
            "press.vibration,press,input/2,uint16,,0.01",
            "press.vibration,press,input/2,uint16,,O.01",
        ),
        edit(folder, "alarms.csv", "press.vibration,H,10", "press.vibratio,H,10"),
        edit(folder, "alarms.csv", "press.oee,L", "press.oe,L"),
        edit(folder, "shifts.toml", 'start = "06:00"', 'strat = "06:00"'),
    ]
    found = "\n".join(problems(folder))
    files = ("gateway.toml", "tags.csv", "alarms.csv", "alarms.csv", "shifts.toml")
    for file, line in zip(files, lines, strict=True):
        assert f"{file}:{line}:" in found
    assert "unknown tag 'press.vibratio' (did you mean 'press.vibration'?)" in found
    assert "unknown tag 'press.oe' (did you mean 'press.oee'?)" in found


def test_a_mistake_in_a_machine_invents_none_about_the_tags_that_it_would_have(folder):
    edit(folder, "gateway.toml", 'asset = "milling/line1/cnc"\nstate_tag', 'aset = "milling/line1/cnc"\nstate_tag')
    assert all("gateway.toml" in problem for problem in problems(folder))


def test_a_missing_file_is_one_sentence(folder):
    (folder / "alarms.csv").unlink()
    [hit] = problems(folder)
    assert "alarms.csv" in hit
    assert "cannot be read" in hit


def test_check_ends_with_2_and_speaks_json(folder):
    edit(folder, "gateway.toml", "live_period_ms", "live_perod_ms")
    result = CliRunner().invoke(main, ["check", "--config", str(folder), "--json"])
    assert result.exit_code == 2
    [problem] = json.loads(result.stdout)
    assert problem["severity"] == "error"
    assert problem["hint"] == "did you mean 'live_period_ms'?"
    assert problem["line"] == (folder / "gateway.toml").read_text().split("live_perod_ms")[0].count("\n") + 1


def test_check_of_the_sample_plant_ends_with_0():
    result = CliRunner().invoke(main, ["check", "--config", str(SAMPLE)])
    assert result.exit_code == 0, result.output
    assert "4 devices" in result.output


def test_semicolons_and_a_byte_order_mark_are_read_as_exported(folder):
    path = folder / "tags.csv"
    rows = csv.reader(line for line in path.read_text().split("\n") if not line.startswith("#"))
    exported = io.StringIO()
    csv.writer(exported, delimiter=";").writerows(rows)
    path.write_bytes(b"\xef\xbb\xbf" + exported.getvalue().encode())
    assert len(load(folder).tags) == len(load(SAMPLE).tags)


def test_ten_thousand_tags_are_all_read(folder):
    path = folder / "tags.csv"
    rows = "\n".join(f"bulk.t{i},press,{i % 200 + 1}/holding/{i // 200}" + ",uint16" for i in range(10_000))
    path.write_text(path.read_text().rstrip("\n") + "\n" + rows + "\n")
    started = time.process_time()
    config = load(folder)
    print(f"10,000 tags: {time.process_time() - started:.2f} s of CPU")
    assert sum(row.tag.startswith("bulk.") for row in config.tags) == 10_000
