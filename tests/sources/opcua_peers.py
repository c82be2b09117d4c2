"""Real OPC UA servers on loopback and what lies between them and us, for the tests of the OPC UA source."""

import asyncio
import contextlib
import socket
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import numpy as np
from asyncua import Server, ua
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.line import Inbox
from edge.sources.opcua import OpcuaOptions, OpcuaPoint, OpcuaSource
from edge.sources.supervisor import Backoff, Supervisor
from edge.tick import Occurred
from plant.batch import BAD, GOOD, Batch, concat
from plant.events import Backfill
from plant.texts import Texts

URI = "urn:test:plc"
SERVER_URI = "urn:test:server"
DEADLINE_S = 20.0
QUICK = Backoff(first_s=0.02, cap_s=0.05, least_s=0.01, stable_s=0.0, refused_s=0.05)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Plc:
    """An asyncua server with variables in the namespace URI, whose index is 2 + `shift`."""

    def __init__(self, port=None, *, shift=0, policies=None, identity=None, users=None):
        self.port = port or free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}/plc"
        self.shift = shift
        self.policies = policies or [ua.SecurityPolicyType.NoSecurity]
        self.identity = identity
        self.users = users
        self.nodes = {}

    async def __aenter__(self):
        self.server = Server(user_manager=self.users)
        await self.server.init()
        self.server.set_endpoint(self.url)
        await self.server.set_application_uri(SERVER_URI)
        self.server.set_security_policy(self.policies)
        if self.users is not None:
            self.server.set_identity_tokens([ua.UserNameIdentityToken])
        if self.identity is not None:
            certificate, key = self.identity
            await self.server.load_certificate(certificate.public_bytes(serialization.Encoding.DER))
            der = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            await self.server.load_private_key(key.private_bytes(*der))
        for n in range(self.shift):
            await self.server.register_namespace(f"urn:test:other:{n}")
        self.index = await self.server.register_namespace(URI)
        await self.server.start()
        return self

    async def __aexit__(self, *error):
        await self.server.stop()

    async def add(self, name, value, variant_type=None):
        node = ua.NodeId(name, self.index)
        self.nodes[name] = await self.server.nodes.objects.add_variable(node, name, value, variant_type)
        return self.nodes[name]

    async def write(self, name, value):
        await self.nodes[name].write_value(value)

    async def remove(self, name):
        await self.nodes.pop(name).delete()


class Users:
    """One user with one password."""

    def get_user(self, iserver, username=None, password=None, certificate=None):
        from asyncua.crypto.permission_rules import User, UserRole

        return User(role=UserRole.User) if (username, password) == ("andon", "s3cret") else None


def point(tag, name, **more):
    return OpcuaPoint(tag=tag, node=f"nsu={URI};s={name}", **more)


def source(url, points, texts=None, **options):
    fast = {
        "publishing_ms": 20, "sampling_ms": 10, "period_ms": 40, "keepalive_ms": 200, "retry_ms": 50,
        "retry_ms_max": 200, "deadline_ms": 4000,
    }  # fmt: skip
    return OpcuaSource(OpcuaOptions(name="plc", asset="a/b/c", url=url, **fast | options), points, texts or Texts())


@contextlib.asynccontextmanager
async def connected(*args, **options):
    one = source(*args, **options)
    try:
        await one.connect()
        yield one
    finally:
        await one.close()


async def collect(one: OpcuaSource, enough, deadline_s=DEADLINE_S) -> Batch:
    """Read until enough(batch of everything so far); fail after the deadline."""
    got = []
    async with asyncio.timeout(deadline_s):
        while True:
            got.append(await one.read())
            whole = concat([batch for batch in got if len(batch)])
            if enough(whole):
                return whole


def last(batch: Batch, tag: int) -> tuple[float, int]:
    """Value and quality of the last reading of a tag."""
    row = np.flatnonzero(batch.tag == tag)[-1]
    return float(batch.value[row]), int(batch.quality[row])


def has(tag, value=None, quality=None):
    """A condition for `collect`: the last reading of the tag is such."""

    def enough(batch):
        if tag not in batch.tag:
            return False
        found, how = last(batch, tag)
        return (value is None or found == value) and (quality is None or how == quality)

    return enough


class Proxy:
    """A wire between us and a server that can be cut without a word in either direction."""

    def __init__(self, port):
        self.target = port
        self.flows = asyncio.Event()
        self.flows.set()
        self.tasks = set()

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.listener.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        both = [self._pump(reader, server_writer), self._answer(server_reader, writer)]
        pumps = [asyncio.create_task(pump) for pump in both]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for one in (writer, server_writer):
                one.transport.abort()

    async def _answer(self, reader, writer):
        await self._pump(reader, writer)

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            await self.flows.wait()
            writer.write(data)


class Running:
    """A device under its supervisor, behind a wire; what arrives is collected."""

    def __init__(self, plc, points, wire, texts=None, **options):
        self.live, self.past, self.signals = [], [], []
        self.inbox = Inbox()
        url = f"opc.tcp://127.0.0.1:{wire.port}/plc"
        self.source = source(url, points, texts, **{"deadline_ms": 500, "keepalive_ms": 100} | options)
        self.supervisor = Supervisor(
            self.source,
            tags={one.tag: f"t{one.tag}" for one in points},
            put=self._put,
            put_history=self.inbox.history,
            signal=self.signals.append,
            backoff=QUICK,
        )

    async def _put(self, batch):
        self.live.append(batch)

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(self.supervisor.run()), asyncio.create_task(self._take())]
        return self

    async def __aexit__(self, *error):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _take(self):
        while True:
            await self.inbox.wait(0.05)
            self.inbox.take()
            batch = self.inbox.take_history()
            if len(batch):
                self.past.append(batch)

    def filled(self):
        return [s.event for s in self.signals if isinstance(s, Occurred) and isinstance(s.event, Backfill)]

    async def until(self, what, deadline_s=DEADLINE_S):
        async with asyncio.timeout(deadline_s):
            while not what():
                await asyncio.sleep(0.01)

    async def sees(self, tag, value):
        await self.until(lambda: self.live and has(tag, value, GOOD)(concat(self.live)))

    def values(self, tag):
        """Live and historic readings of a tag that are no BAD, by time."""
        whole = concat([*self.live, *self.past])
        whole = whole.select((whole.tag == tag) & (whole.quality != BAD))
        return whole.select(np.argsort(whole.time, kind="stable"))


@contextlib.asynccontextmanager
async def break_of(wire, running):
    """The wire is cut; the supervisor notices before the block runs, and the wire is whole again after it."""
    wire.flows.clear()
    await running.until(lambda: running.supervisor.status.state == "down")
    yield
    wire.flows.set()


def certificate(
    uri=SERVER_URI,
    hosts=("127.0.0.1", "localhost"),
    *,
    bits=2048,
    start=-1.0,
    days=30.0,
    ca=False,
    issuer=None,
    usage=True,
    purposes=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    name="test plc",
):
    """Return (certificate, key); issuer is such a pair."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.UniformResourceIdentifier(uri)]
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start))
        .not_valid_after(now + timedelta(days=start + days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(usage, usage, usage, usage, False, ca, ca, False, False), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def revocations(issuer, revoked=(), *, next_update_days=5.0):
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer[0].subject)
        .last_update(now - timedelta(days=9))
        .next_update(now + timedelta(days=next_update_days))
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now - timedelta(1))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer[1], hashes.SHA256())


def put(folder, name, what):
    """Write a certificate or revocation list as DER."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(what.public_bytes(serialization.Encoding.DER))
    return path


def until(condition, deadline_s=DEADLINE_S):
    """Poll a condition of another process."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")
