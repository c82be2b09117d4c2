"""Certificates that run out are told in time, and a renewed one is used without a restart."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import ua
from cryptography.hazmat.primitives import serialization
from opcua_peers import Plc, certificate, has, point, put, source

from edge.errors import Disconnected
from edge.sources.opcua_expiry import judge
from edge.sources.opcua_security import thumbprint
from edge.sources.supervisor import Backoff, Supervisor
from edge.tick import Condition
from plant.batch import concat

DER = serialization.Encoding.DER
SECURED = {"security_policy": "Basic256Sha256", "security_mode": "SignAndEncrypt"}
KINDS = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]


@pytest.mark.parametrize(
    ("days", "priority"), [(61, None), (59, "low"), (29, "medium"), (6, "high"), (0.0001, "high"), (-1, "high")]
)
def test_the_alarm_grows_more_urgent_as_the_day_comes_near(days, priority):
    ours, servers = certificate(days=400)[0], certificate(start=-100, days=100 + days)[0]
    notice = judge(ours.public_bytes(DER), servers.public_bytes(DER), datetime.now(UTC))
    assert (notice.priority if notice else None) == priority
    if notice:
        assert "The server's certificate" in notice.sentence
        assert thumbprint(servers) in notice.sentence
        assert ("expired on" in notice.sentence) == (days < 0)


def test_both_certificates_are_named_and_the_more_urgent_one_leads():
    ours, servers = certificate(days=5)[0], certificate(days=40)[0]
    notice = judge(ours.public_bytes(DER), servers.public_bytes(DER), datetime.now(UTC) + timedelta(hours=1))
    assert notice.priority == "high"
    assert notice.sentence.startswith("Our certificate")
    assert "The server's certificate" in notice.sentence
    assert judge(b"", b"", datetime.now(UTC)) is None


def write_own(folder, days):
    """Put a certificate of ours with its key into a folder."""
    made, key = certificate("urn:test:andon", days=days, name="andon")
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(*pem))
    put(folder, "own.der", made)
    return made


async def test_a_certificate_that_runs_out_is_an_alarm_and_the_renewed_one_is_used_without_a_restart(tmp_path):
    identity = certificate(days=300)
    put(tmp_path / "pki" / "trusted" / "certs", "plc.der", identity[0])
    write_own(tmp_path, days=4)
    own = {"certificate": tmp_path / "own.der", "private_key": tmp_path / "key.pem", "pki_dir": tmp_path / "pki"}
    async with Plc(policies=KINDS, identity=identity) as plc:
        await plc.add("speed", 1.0)
        signals, batches = [], []

        async def take(batch):
            batches.append(batch)

        one = source(plc.url, [point(1, "speed")], certificate_check_s=0.1, keepalive_ms=100, **own, **SECURED)
        supervisor = Supervisor(
            one, tags={1: "speed"}, put=take, signal=signals.append, backoff=Backoff(first_s=0.01, least_s=0.01)
        )

        def alarm():
            said = [s for s in signals if isinstance(s, Condition) and s.alarm == "device.plc.certificate"]
            return said[-1] if said else None

        task = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(20):
                while alarm() is None:
                    await asyncio.sleep(0.01)
                assert (alarm().active, alarm().priority) == (True, "high")
                assert "Our certificate" in alarm().message
                renewed = await asyncio.to_thread(write_own, tmp_path, 300)
                while alarm().active:
                    await asyncio.sleep(0.01)
                assert one._session.own_certificate == renewed.public_bytes(DER)
                await plc.write("speed", 2.0)
                while not has(1, 2.0)(concat(batches)):
                    await asyncio.sleep(0.01)
            assert supervisor.status.reconnects == 1
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_renewed_file_that_is_half_written_changes_nothing(tmp_path):
    identity = certificate(days=300)
    put(tmp_path / "pki" / "trusted" / "certs", "plc.der", identity[0])
    write_own(tmp_path, days=300)
    own = {"certificate": tmp_path / "own.der", "private_key": tmp_path / "key.pem", "pki_dir": tmp_path / "pki"}
    async with Plc(policies=KINDS, identity=identity) as plc:
        await plc.add("speed", 1.0)
        one = source(plc.url, [point(1, "speed")], certificate_check_s=0.05, keepalive_ms=100, **own, **SECURED)
        await one.connect()
        try:
            (tmp_path / "own.der").write_bytes(b"half")
            for _ in range(10):
                await one.read()
            assert one.notices == {}
            await asyncio.to_thread(write_own, tmp_path, 300)
            with pytest.raises(Disconnected, match="renewed"):
                async with asyncio.timeout(10):
                    while True:
                        await one.read()
        finally:
            await one.close()
