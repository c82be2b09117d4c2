"""Serial lines in gateway.toml: what cannot work is told before anything is opened."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from edge.config import load
from edge.errors import ConfigError
from edge.sources.modbus import ModbusOptions

SAMPLE = Path(__file__).parents[2] / "config"


def faults(folder: Path, devices: str) -> list[str]:
    plant = Path(shutil.copytree(SAMPLE, folder / "config"))
    with (plant / "gateway.toml").open("a") as file:
        file.write(devices)
    with pytest.raises(ConfigError) as caught:
        load(plant)
    return [str(problem) for problem in caught.value.problems]


def test_two_devices_on_one_serial_port_are_refused_with_the_way_out(tmp_path):
    device = (
        '[[device]]\ntype = "modbus"\nname = "{}"\nasset = "a/b/{}"\ntransport = "rtu"\nserial_port = "/dev/ttyS9"\n'
    )
    found = faults(tmp_path, "\n" + device.format("meters", "c") + device.format("drives", "d"))
    lines = (tmp_path / "config" / "gateway.toml").read_text().splitlines()
    last = max(i for i, line in enumerate(lines, 1) if line.startswith("serial_port"))
    (fault,) = found
    assert f"gateway.toml:{last}: device 'drives' uses the serial line /dev/ttyS9 of device 'meters'" in fault
    assert "read all unit ids of a line with one [[device]]" in fault


def test_an_option_that_does_not_fit_the_transport_is_named_with_its_device(tmp_path):
    found = faults(
        tmp_path, '\n[[device]]\ntype = "modbus"\nname = "m"\nasset = "a/b/c"\ntransport = "rtu"\nhost = "h"\n'
    )
    (fault,) = found
    assert 'host does not belong to transport "rtu"' in fault


def test_the_examples_of_the_page_are_valid():
    page = (Path(__file__).parents[2] / "docs" / "modbus.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    devices = [ModbusOptions.model_validate(device) for device in tomllib.loads(example)["device"]]
    assert [device.transport for device in devices] == ["rtu", "rtu_over_tcp"]
    named = {key for key in re.findall(r"`([a-z_]+)", page) if "_" in key}
    assert named - set(ModbusOptions.model_fields) == {"rtu_over_tcp"}
