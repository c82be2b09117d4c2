"""/metrics: what it says, that Prometheus takes it, and that the table of the docs is the code's."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from web_gateway import PlainGateway, device, plain, plant

from edge.web.gateway import Durations, Stats
from edge.web.lag import LoopLag
from edge.web.metrics import METRICS, render

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def text(tmp_path):
    return render(plant(), PlainGateway(tmp_path).stats()).decode()


def sample(text, name, **labels):
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return each.value
    return None


def test_readings_are_counted_by_source(text):
    assert sample(text, "andon_readings_total", source="cnc") == 190_000


def test_lost_devices_alarms_and_oee_are_told(text):
    assert sample(text, "andon_device_up", device="press", type="modbus") == 0
    assert sample(text, "andon_device_problems", device="strip") == 2
    assert sample(text, "andon_alarms_active", priority="critical") == 1
    assert sample(text, "andon_alarms_active", priority="low") == 0
    assert sample(text, "andon_alarms", priority="low", state="G") == 1
    assert sample(text, "andon_machine_state", machine="press", state="down") == 1
    assert sample(text, "andon_machine_oee_ratio", machine="cnc") == pytest.approx(0.878)
    assert sample(text, "andon_readings_dropped_total", reason="inbox_full") == 3


def test_the_time_of_a_step_is_a_cumulative_histogram(text):
    assert sample(text, "andon_step_duration_seconds_bucket", le="0.0001") == 1
    assert sample(text, "andon_step_duration_seconds_bucket", le="0.0005") == 3
    assert sample(text, "andon_step_duration_seconds_bucket", le="+Inf") == 5
    assert sample(text, "andon_step_duration_seconds_count") == 5
    assert sample(text, "andon_step_duration_seconds_sum") == pytest.approx(0.30468)


def test_what_cannot_be_said_is_left_out():
    snapshot = plant()
    machine = msgspec.structs.replace(snapshot.machines[0], oee=None, performance=None)
    text = render(msgspec.structs.replace(snapshot, machines=[machine]), Stats()).decode()
    assert sample(text, "andon_machine_oee_ratio", machine="cnc") is None
    assert sample(text, "andon_machine_quality_ratio", machine="cnc") == pytest.approx(0.983)


@pytest.mark.parametrize("name", ['pre"ss', "pre\\ss", "pre\nss", "Pressé"])
def test_odd_names_survive_as_labels(name):
    text = render(msgspec.structs.replace(plain(), devices=[device(name, "modbus")]), Stats()).decode()
    assert sample(text, "andon_readings_total", source=name) == 190_000


def test_the_process_tells_its_own_cost(text):
    assert sample(text, "andon_process_cpu_seconds_total") > 0
    assert sample(text, "andon_process_resident_memory_bytes") > 1_000_000
    assert sample(text, "andon_process_open_fds") >= 3


@pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"), reason="promtool: apt install prometheus"
)
@pytest.mark.parametrize("snapshot", [plant(), plain()], ids=["plant", "plain"])
async def test_prometheus_finds_nothing_to_say(tmp_path, snapshot):
    process = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate(render(snapshot, PlainGateway(tmp_path).stats()))
    assert (process.returncode, out.decode()) == (0, "")


def test_the_table_of_the_docs_is_the_table_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    code = [(m.name, m.kind, ", ".join(f"`{label}`" for label in m.labels) or "none", m.help) for m in METRICS]
    assert rows == code


def test_names_have_the_prefix_and_counters_say_so():
    assert len({m.name for m in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("andon_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")


@given(st.lists(st.floats(0, 10), max_size=50), st.floats(0.01, 0.99))
def test_durations_count_each_observation_once_and_bound_the_quantile(observations, q):
    durations = Durations((0.001, 0.1, 1.0))
    for seconds in observations:
        durations.observe(seconds)
    histogram = durations.histogram()
    assert sum(histogram.counts) == len(observations)
    assert histogram.sum == pytest.approx(sum(observations))
    inside = sorted(observations)
    if inside and inside[-1] <= 1.0:
        below = sum(seconds <= durations.quantile(q) for seconds in inside)
        assert below >= q * len(inside) - 1e-9


async def test_the_lag_of_the_loop_is_seen():
    import time

    lag = LoopLag(period_s=0.01)
    task = asyncio.create_task(lag.run())
    await asyncio.sleep(0)
    time.sleep(0.1)
    async with asyncio.timeout(5):
        while lag.max_s < 0.08:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
