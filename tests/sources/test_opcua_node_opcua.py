"""The OPC UA source against node-opcua, a server that shares no code with it nor with asyncua."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from opcua_peers import (
    Proxy,
    Running,
    break_of,
    certificate,
    collect,
    connected,
    free_port,
    has,
    last,
    point,
    put,
    source,
)

from edge.errors import Disconnected, Refused, Unreachable
from plant.batch import BAD, GOOD, concat
from plant.texts import Texts

PEER = Path(__file__).parents[1] / "peers" / "node_opcua"
MODULES = PEER / "node_modules"
NODES = {"speed": 1.5, "load": 2.5, "running": True, "program": "O100"} | {f"n{k}": float(k) for k in range(40)}
MODES = pytest.mark.parametrize("mode", ["subscribe", "read"])

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def _installed():
    missing = [str(MODULES)] if not MODULES.is_dir() else []
    missing += [] if shutil.which("node") else ["the program node"]
    if missing:
        what = f"{' and '.join(missing)} is missing; install Node 20 and run: npm ci --prefix {PEER}"
        if os.environ.get("CI"):
            pytest.fail(what)
        pytest.skip(what)


class NodePlc:
    """A node-opcua server process; `limits` are its OperationLimits."""

    def __init__(self, pki, nodes=None, *, port=None, limits=None, recorded=()):
        self.pki = pki
        self.nodes = nodes or NODES
        self.port = port or free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}/plc"
        self.limits = limits or {}
        self.recorded = list(recorded)

    async def __aenter__(self):
        arguments = str(self.port), str(self.pki), json.dumps(self.nodes), json.dumps(self.limits)
        arguments += (json.dumps(self.recorded),)
        self.process = await asyncio.create_subprocess_exec(
            "node",
            str(PEER / "server.js"),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self._answer(60)
        return self

    async def __aexit__(self, *error):
        if self.process.returncode is None:
            self.process.kill()
        self.process.stdin.close()
        await self.process.communicate()

    async def _answer(self, deadline_s=20):
        async with asyncio.timeout(deadline_s):
            while line := await self.process.stdout.readline():
                if line.startswith(b"{"):
                    return json.loads(line)
        raise AssertionError("the node-opcua server ended")

    async def tell(self, **command):
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.process.stdin.drain()
        assert await self._answer() == {"done": True}

    def kill(self):
        self.process.kill()


@pytest.fixture(scope="module")
def server_pki(tmp_path_factory):
    return tmp_path_factory.mktemp("node_opcua")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plc(server_pki):
    async with NodePlc(server_pki, limits={"maxMonitoredItemsPerCall": 7, "maxNodesPerRead": 9}) as one:
        yield one


@MODES
async def test_values_of_more_nodes_than_the_server_takes_per_call_arrive(plc, mode):
    texts = Texts()
    points = [point(n, name, text=name == "program") for n, name in enumerate(NODES)]
    await plc.tell(set="speed", value=1.5)
    async with connected(plc.url, points, texts, mode=mode) as one:
        batch = await collect(one, lambda got: len(set(got.tag)) == len(NODES))
        assert one.problems == {}
        for tag, (name, value) in enumerate(NODES.items()):
            number, quality = last(batch, tag)
            assert quality == GOOD
            assert (texts.text(tag, int(number)) if name == "program" else number) == value
        await plc.tell(set="speed", value=8.25)
        await collect(one, has(0, 8.25, GOOD))
        await plc.tell(set="speed", value=0.0, status="BadSensorFailure")
        await collect(one, has(0, None, BAD))
        assert "BadSensorFailure" in one.problems[0]
        await plc.tell(set="speed", value=1.5)
        await collect(one, has(0, 1.5, GOOD))
        assert one.problems == {}


@MODES
async def test_a_node_that_appears_vanishes_and_returns(plc, mode):
    async with connected(plc.url, [point(1, "load"), point(2, f"late-{mode}")], mode=mode) as one:
        await collect(one, has(1, 2.5))
        assert "BadNodeIdUnknown" in one.problems[2]
        await plc.tell(add=f"late-{mode}", value=4.0)
        await collect(one, has(2, 4.0, GOOD))
        await plc.tell(remove=f"late-{mode}")
        await collect(one, has(2, None, BAD))
        assert 2 in one.problems
        await plc.tell(add=f"late-{mode}", value=5.0)
        await collect(one, has(2, 5.0, GOOD))
        assert one.problems == {}


async def test_the_overflow_of_a_queue_is_counted_as_loss(plc):
    async with connected(plc.url, [point(1, "n0")], queue_size=2, publishing_ms=1000) as one:
        await collect(one, has(1))
        assert one.lost == 0
        await plc.tell(burst="n0", count=20)
        await collect(one, has(1, 20.0))
        assert one.lost > 0


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
async def test_a_secured_channel_with_user_and_password(plc, tmp_path, policy):
    password = tmp_path / "password"
    password.write_text("s3cret\n", encoding="utf-8")
    secured = {
        "security_policy": policy, "security_mode": "SignAndEncrypt", "pki_dir": tmp_path / "pki", "user": "andon",
        "password_file": password, "check_host": False,
    }  # fmt: skip
    with pytest.raises(Refused, match="not trusted"):
        await source(plc.url, [], **secured).connect()
    (rejected,) = (tmp_path / "pki" / "rejected").iterdir()
    assert x509.load_der_x509_certificate(rejected.read_bytes())
    (tmp_path / "pki" / "trusted" / "certs").mkdir(parents=True)
    rejected.rename(tmp_path / "pki" / "trusted" / "certs" / rejected.name)
    points = [point(n, name) for n, name in enumerate(NODES) if name != "program"]
    async with connected(plc.url, points, **secured) as one:
        await collect(one, lambda got: len(set(got.tag)) == len(points))
        await one._session.renew()
        await plc.tell(set="load", value=77.0)
        await collect(one, has(1, 77.0, GOOD))
        await plc.tell(set="load", value=2.5)
    password.write_text("guess", encoding="utf-8")
    with pytest.raises(Refused, match="'andon'"):
        await source(plc.url, [], **secured).connect()


async def test_a_user_can_be_a_certificate(plc, tmp_path):
    user, key = certificate("urn:test:user", ())
    private = tmp_path / "user.key"
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(*pem))
    trusted = tmp_path / "pki" / "trusted" / "certs"
    secured = {
        "security_policy": "Basic256Sha256", "security_mode": "SignAndEncrypt", "pki_dir": tmp_path / "pki",
        "check_host": False, "user_certificate": put(tmp_path, "user.der", user), "user_private_key": private,
    }  # fmt: skip
    with pytest.raises(Refused, match="not trusted"):
        await source(plc.url, [], **secured).connect()
    trusted.mkdir(parents=True)
    for rejected in (tmp_path / "pki" / "rejected").iterdir():
        rejected.rename(trusted / rejected.name)
    async with connected(plc.url, [point(1, "load")], **secured) as one:
        await collect(one, has(1, 2.5, GOOD))
    private.write_bytes(certificate()[1].private_bytes(*pem))
    with pytest.raises(Refused, match="does not belong"):
        await source(plc.url, [], **secured).connect()


async def test_a_server_that_was_killed_returns_without_one_of_its_nodes(server_pki):
    port = free_port()
    one = source(f"opc.tcp://127.0.0.1:{port}/plc", [point(1, "speed"), point(2, "load")])
    try:
        async with NodePlc(server_pki, port=port) as first:
            await one.connect()
            await collect(one, lambda got: has(1, 1.5)(got) and has(2, 2.5)(got))
            first.kill()
            with pytest.raises(Disconnected, match=str(port)):
                await collect(one, lambda got: False)
            with pytest.raises(Unreachable, match=str(port)):
                await one.connect()
        async with NodePlc(server_pki, {"speed": 9.5}, port=port):
            await one.connect()
            batch = await collect(one, has(1, 9.5, GOOD))
            assert last(batch, 2)[1] == BAD
            assert list(one.problems) == [2]
            await one.close()
    finally:
        await one.close()


async def test_the_history_of_an_independent_server_fills_a_break_over_continuation_points(server_pki):
    points = [point(1, "speed"), point(2, "load")]
    async with (
        NodePlc(server_pki, recorded=["speed"]) as plc,
        Proxy(plc.port) as wire,
        Running(plc, points, wire) as one,
    ):
        await one.sees(1, 1.5)
        async with break_of(wire, one):
            await plc.tell(record="speed", count=2500)
            await plc.tell(set="load", value=9.0)
        await one.until(one.filled)
        past = concat(one.past)
        assert past.value.tolist() == [float(n) for n in range(1, 2500)]  # 2500 came live
        assert (past.time[1:] > past.time[:-1]).all()
        (event,) = one.filled()
        assert (event.count, event.tags, event.without, event.cut) == (2499, 1, 1, 0)
