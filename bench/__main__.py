"""`make bench`: the whole path, from the PLC's socket to the committed row, at several loads.

Each row starts a load server, a real Mosquitto and the real daemon (`andon run`) as processes of their own, waits
until data flows, then measures: CPU time of the daemon (user + system, all threads) per reading, readings
taken, memory, and how long an alarm takes. Median of several windows with the spread, written to
bench/results/latest.json.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import paho.mqtt.client as mqtt

from edge.control import Control
from edge.errors import AndonError

RESULTS = Path(__file__).parent / "results"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
GOALS = {
    "cpu_us_per_reading_opcua_10000": 3.0,
    "cpu_us_per_reading_opcua_1000": 3.0,
    "cpu_us_per_reading_modbus_10000": 3.0,
    "alarm_published_ms_p99": 10.0,
    "rss_mb_10000_tags": 250.0,
    "idle_cpu_percent_100_tags": 2.0,
}


@dataclass
class Load:
    """protocol: "opcua" or "modbus". tags, each with a new value every period_ms; some of them raise alarms."""

    name: str
    protocol: str
    tags: int
    period_ms: int
    alarms_per_s: int = 1

    @property
    def offered_per_s(self) -> float:
        return self.tags * 1000 / self.period_ms


LOADS = [
    Load("idle", "opcua", 100, 1000),
    Load("opcua alarms", "opcua", 10_000, 100, alarms_per_s=10),
    Load("modbus alarms", "modbus", 10_000, 100, alarms_per_s=10),
    Load("opcua 1k", "opcua", 1_000, 100),
    Load("opcua 10k", "opcua", 10_000, 1000),
    Load("opcua 10k fast", "opcua", 10_000, 100),
    Load("modbus 1k", "modbus", 1_000, 100),
    Load("modbus 10k", "modbus", 10_000, 1000),
    Load("modbus 10k fast", "modbus", 10_000, 100),
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def configure(folder: Path, load: Load, port: int, mqtt_port: int) -> None:
    """Write a configuration that reads every tag of the load, with limits on the first 1,000."""
    device = {
        "opcua": f'type = "opcua"\nurl = "opc.tcp://127.0.0.1:{port}/bench"\n'
        f"sampling_ms = {load.period_ms}\npublishing_ms = {load.period_ms}",
        "modbus": f'type = "modbus"\nhost = "127.0.0.1"\nport = {port}\nperiod_ms = {load.period_ms}',
    }[load.protocol]
    (folder / "gateway.toml").write_text(
        f'[site]\nenterprise = "bench"\nsite = "bench"\n[gateway]\nname = "bench"\nstate_dir = "state"\n'
        f"[mqtt]\nport = {mqtt_port}\n[web]\nenabled = false\n"
        f'[[device]]\nname = "load"\nasset = "area/line/cell"\n{device}\n'
    )
    rows = ["tag,device,address,type,order,unit"]
    for i in range(load.tags):
        if load.protocol == "opcua":
            rows.append(f"t{i},load,nsu=urn:andon:bench;i={i + 1},,,1")
        else:
            # 65,536 registers hold 32,768 float32 values; one unit is enough.
            rows.append(f"t{i},load,holding/{2 * i},float32,ABCD,1")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n")
    alarms = ["alarm,tag,condition,limit,cause,consequence,action"]
    alarms += [f"high{i},t{i},HH,900,c,c,a" for i in range(min(load.tags, 1000))]
    (folder / "alarms.csv").write_text("\n".join(alarms) + "\n")
    (folder / "shifts.toml").write_text("")


class Daemon:
    """The running gateway, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], state_dir: Path) -> None:
        self.process = process
        self.control = Control(state_dir)

    def cpu_s(self) -> float:
        """CPU time so far, user and system, all threads (proc(5), stat, fields 14 and 15)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def wait_for_data(self, tags: int, seconds: float = 120.0) -> float:
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            try:
                if self.control.status().tags_alive >= tags:
                    return time.monotonic() - started
            except AndonError:
                pass
            if self.process.poll() is not None:
                raise SystemExit("the daemon ended")
            time.sleep(0.2)
        raise SystemExit(f"no data after {seconds:g} s: {self.control.status()}")


@contextmanager
def child(arguments: list[str], *, wait_for: bytes = b"", log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE if wait_for else file, stderr=file)
        try:
            if wait_for and process.stdout:
                line = process.stdout.readline()
                if wait_for not in line:
                    raise SystemExit(f"{arguments} said {line!r}; see {log}: {log.read_text()}")
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            if process.stdout:
                process.stdout.close()


class AlarmWatch:
    """Subscribes to alarm states and notes the latency from the reading's time to this subscriber, on one clock.

    The reading's time is the server's (OPC UA) or that of the reply's arrival (Modbus), cut to milliseconds in the
    message: what is measured is up to 1 ms more than the truth, and includes the broker.
    """

    def __init__(self, port: int) -> None:
        self.latencies_ms: list[float] = []
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe("bench/#", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, client, userdata, message) -> None:  # noqa: ARG002
        arrived = time.time_ns()
        if "/alarm/high" not in message.topic or message.retain or not message.payload:
            return
        alarm = json.loads(message.payload)
        if alarm.get("transition") == "activate":
            happened = datetime.fromisoformat(alarm["time"]).timestamp()
            self.latencies_ms.append(arrived / 1e6 - happened * 1000)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def quantile(ordered: list[float], q: float) -> float:
    return ordered[min(int(len(ordered) * q), len(ordered) - 1)] if ordered else float("nan")


def measure(load: Load, windows: int, window_s: float) -> dict[str, object]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="andon-bench-")))
        port, mqtt_port = free_port(), free_port()
        configure(folder, load, port, mqtt_port)
        mosquitto = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") or "mosquitto"
        (folder / "mosquitto.conf").write_text(
            f"listener {mqtt_port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        )
        stack.enter_context(child([mosquitto, "-c", str(folder / "mosquitto.conf")], log=folder / "mosquitto.log"))
        server = [sys.executable, "-m", f"bench.{load.protocol}_load", "--port", str(port), "--tags", str(load.tags)]
        server += ["--cycles-per-spike", str(max(1, 1000 // max(load.period_ms, 100) // load.alarms_per_s))]
        stack.enter_context(child(server, wait_for=b"ready", log=folder / "server.log"))
        command = [sys.executable, "-m", "edge.cli", "run", "--no-watch", "--config", str(folder)]
        process = stack.enter_context(child(command, log=folder / "daemon.log"))
        daemon = Daemon(process, folder / "state")
        first_data_s = daemon.wait_for_data(load.tags)
        watch = AlarmWatch(mqtt_port)
        stack.callback(watch.close)
        time.sleep(2)
        us, rates, cores = [], [], []
        for _ in range(windows):
            before, cpu, at = daemon.control.status().readings, daemon.cpu_s(), time.monotonic()
            time.sleep(window_s)
            readings, spent = daemon.control.status().readings - before, daemon.cpu_s() - cpu
            elapsed = time.monotonic() - at
            rates.append(readings / elapsed)
            cores.append(spent / elapsed)
            us.append(spent / max(readings, 1) * 1e6)
        latencies = sorted(watch.latencies_ms)
        status = daemon.control.status()
        return {
            **asdict(load),
            "offered_per_s": load.offered_per_s,
            "taken_per_s": statistics.median(rates),
            "cpu_us_per_reading": statistics.median(us),
            "cpu_us_spread": [min(us), max(us)],
            "cores": statistics.median(cores),
            "rss_mb": daemon.rss_mb(),
            "first_data_s": first_data_s,
            "alarm_ms_p50": quantile(latencies, 0.5),
            "alarm_ms_p99": quantile(latencies, 0.99),
            "alarms": len(latencies),
            "ring_bytes": status.ring.bytes,
            "ring_rows": status.ring.rows,
            "step_ms_p99": status.step_ms_p99,
        }


def machine() -> dict[str, object]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}


def goals(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Hold the measured figures against the goals."""
    by_name = {str(row["name"]): row for row in rows}
    measured = {
        "cpu_us_per_reading_opcua_10000": ("opcua 10k fast", "cpu_us_per_reading"),
        "cpu_us_per_reading_opcua_1000": ("opcua 1k", "cpu_us_per_reading"),
        "cpu_us_per_reading_modbus_10000": ("modbus 10k fast", "cpu_us_per_reading"),
        "alarm_published_ms_p99": ("opcua alarms", "alarm_ms_p99"),
        "rss_mb_10000_tags": ("opcua 10k fast", "rss_mb"),
        "idle_cpu_percent_100_tags": ("idle", "cores"),
    }
    found: dict[str, dict[str, object]] = {}
    for name, (row, column) in measured.items():
        if row in by_name:
            value = float(by_name[row][column]) * (100 if column == "cores" else 1)  # type: ignore[arg-type]
            found[name] = {"goal": GOALS[name], "measured": value, "met": value <= GOALS[name]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help="run the loads whose name contains this")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a window")
    arguments = parser.parse_args()
    rows = []
    print(f"{'load':<18}{'offered/s':>11}{'taken/s':>11}{'us/reading':>12}{'spread':>16}{'cores':>8}{'RSS MB':>8}"
          f"{'alarm ms p50':>14}{'p99':>8}")  # fmt: skip
    for load in LOADS:
        if arguments.only not in load.name:
            continue
        row = measure(load, arguments.windows, arguments.seconds)
        rows.append(row)
        low, high = row["cpu_us_spread"]  # type: ignore[misc]
        p50, p99 = row["alarm_ms_p50"], row["alarm_ms_p99"]
        print(f"{load.name:<18}{row['offered_per_s']:>11.0f}{row['taken_per_s']:>11.0f}"
              f"{row['cpu_us_per_reading']:>12.2f}{f'{low:.2f}-{high:.2f}':>16}{row['cores']:>8.3f}{row['rss_mb']:>8.0f}"
              f"{p50:>14.2f}{p99:>8.2f}", flush=True)  # fmt: skip
    report = {"machine": machine(), "rows": rows, "goals": goals(rows)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, goal in report["goals"].items():
        print(f"{name:<34}{goal['measured']:>9.2f}  goal {goal['goal']:g}: {'met' if goal['met'] else 'MISSED'}")


if __name__ == "__main__":
    main()
