"""The gateway talks to whom it is told to and to nobody else, and needs no package but its own."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path

import pytest
from e2e_peers import PROJECT, Daemon, SimulatedPlant, needed, until

WATCHED_READINGS = 500
ADDRESS = re.compile(
    r"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"([^\"]+)\""
)
UNIX = re.compile(r"sa_family=AF_UNIX, sun_path=(@?\"[^\"]*\")")


def traced(log: Path, *command: str) -> list[str]:
    """The command line that runs `command` and writes down every address that it or its threads talk to."""
    calls = "connect,sendto,sendmsg,sendmmsg"
    return [needed("strace", "strace"), "-f", "-qq", "--seccomp-bpf", "-e", f"trace={calls}", "-o", str(log), *command]


def peers(log: Path) -> set[tuple[str, int]]:
    return {(address, int(port)) for port, address in ADDRESS.findall(log.read_text())}


def test_the_gateway_connects_to_its_devices_and_its_broker_only(folder, plant: SimulatedPlant, broker):
    place = folder / "watched"
    place.mkdir()
    daemon = Daemon(place, plant.ports, broker.port)
    log = place / "strace.log"
    daemon.prefix = traced(log)
    try:
        daemon.start()
        daemon.wait_alive(60)
        until(lambda: daemon.status().readings > WATCHED_READINGS, "work", 60)
        until(lambda: daemon.status().broker.state == "connected", "and the broker")
        assert daemon.get("/healthz")[0] == 200
        # The signal goes to strace's child, the gateway; strace ends with its exit code.
        tasks = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
        (child,) = tasks.read_text().split()
        os.kill(int(child), 15)
        assert daemon.process.wait(30) == 0
    finally:
        daemon.kill()
    wanted = {("127.0.0.1", plant.ports[name]) for name in ("cnc", "press", "strip", "inspection")}
    wanted |= {("127.0.0.1", broker.port)}
    assert peers(log) == wanted
    assert UNIX.findall(log.read_text()) == [], "nobody is asked for names or accounts either"


def test_the_inference_engine_is_imported_without_a_word_to_its_vendor(tmp_path: Path):
    log = tmp_path / "strace.log"
    code = "import edge, onnxruntime, time; onnxruntime.get_available_providers(); time.sleep(2)"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = traced(log, sys.executable, "-c", code)
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert peers(log) == set()
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path != log]
    assert left == []


REFUSES_OTHERS = """
import sys
class Door:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {others!r}:
            raise ModuleNotFoundError(f"{{name}} is not among the packages of the gateway", name=name)
sys.meta_path.insert(0, Door())
sys.argv = ["andon", *sys.argv[1:]]
import pkgutil, importlib, edge
for module in pkgutil.walk_packages(edge.__path__, "edge."):
    if module.name not in {demo!r}:
        importlib.import_module(module.name)
from edge.cli import main
main()
"""
DEMO = ("edge.broker", "edge.simulator")
"""What only the demonstration needs may import what only the demonstration has."""


def plain(name: str) -> str:
    return name.lower().replace("_", "-")


def own_packages() -> set[str]:
    """The names under which the distributions are imported that the extra `edge` brings with it."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {plain(one.metadata["Name"]) for one in distributions()}
    todo = list(extras["edge"])
    wanted = {"andon"}
    while todo:
        requirement, _, marker = todo.pop().partition(";")
        name = plain(re.split(r"[ \[<>=!~(]", requirement.strip())[0])
        if "extra ==" not in marker and name in installed and name not in wanted:
            wanted.add(name)
            todo += requires(name) or ()
    return {top for top, found in packages_distributions().items() if {plain(one) for one in found} & wanted}


@pytest.fixture(scope="module")
def others() -> set[str]:
    found = set(packages_distributions()) - own_packages()
    assert {"pytest", "hypothesis", "mypy", "jsonschema"} <= found
    return found


def test_the_gateway_imports_and_runs_with_the_packages_of_its_own_extra(
    folder, plant: SimulatedPlant, broker, others: set[str]
):
    place = folder / "alone"
    place.mkdir()
    daemon = Daemon(place, plant.ports, broker.port)
    script = place / "alone.py"
    script.write_text(REFUSES_OTHERS.format(others=others, demo=DEMO))
    ast.parse(script.read_text())
    check = subprocess.run(
        [sys.executable, str(script), "check", "--config", str(daemon.folder)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    daemon.environment = {"PYTHONPATH": str(PROJECT)}
    daemon.program = [str(script)]
    try:
        daemon.start()
        daemon.wait_alive()
        assert daemon.stop() == 0
        assert daemon.noise() == []
    finally:
        daemon.kill()
