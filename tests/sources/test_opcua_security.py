"""Secured channels to asyncua's server: who is let in, who is refused, in three policies; our own certificate."""

import asyncio
import shutil
import stat
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from asyncua import ua
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from opcua_peers import SERVER_URI, Plc, Users, certificate, collect, connected, has, point, put, source

from edge.errors import Refused, Unreachable
from edge.sources.opcua_security import own_identity, read_identity, thumbprint

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICIES = {
    "Basic256Sha256": "Basic256Sha256",
    "Aes128_Sha256_RsaOaep": "Aes128Sha256RsaOaep",
    "Aes256_Sha256_RsaPss": "Aes256Sha256RsaPss",
}
SECURED = {"security_policy": "Basic256Sha256", "security_mode": "SignAndEncrypt"}


def der(one: x509.Certificate) -> bytes:
    return one.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def pki(tmp_path):
    return tmp_path / "pki"


@pytest.fixture(scope="module")
def identity():
    return certificate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plc(identity):
    """A server with all secured endpoints and none without security, and a user."""
    kinds = [
        getattr(ua.SecurityPolicyType, f"{policy}_{mode}")
        for policy in POLICIES.values()
        for mode in ("Sign", "SignAndEncrypt")
    ]
    async with Plc(policies=kinds, identity=identity, users=Users()) as one:
        await one.add("speed", 1.0)
        yield one


@pytest.fixture
def asks(pki, tmp_path):
    password = tmp_path / "password"
    password.write_text("s3cret", encoding="utf-8")
    return {"pki_dir": pki, "user": "andon", "password_file": password}


@pytest.mark.parametrize("policy", POLICIES)
async def test_an_unknown_server_is_refused_and_welcome_once_its_file_was_moved(plc, identity, pki, asks, policy):
    secured = asks | {"security_policy": policy, "security_mode": "SignAndEncrypt"}
    with pytest.raises(Refused) as refused:
        await source(plc.url, [], **secured).connect()
    copy = pki / "rejected" / f"{thumbprint(identity[0])}.der"
    for part in (plc.url, thumbprint(identity[0]), str(copy), str(pki / "trusted" / "certs")):
        assert part in str(refused.value)
    assert copy.read_bytes() == der(identity[0])
    (pki / "trusted" / "certs").mkdir(parents=True)
    shutil.move(copy, pki / "trusted" / "certs" / "plc")
    async with connected(plc.url, [point(1, "speed")], **secured) as one:
        await collect(one, has(1, 1.0))
        await one._session.renew()
        await plc.write("speed", 2.0)
        await collect(one, has(1, 2.0))
        await plc.write("speed", 1.0)


async def test_values_flow_over_a_channel_that_only_signs(plc, identity, pki, asks):
    put(pki / "trusted" / "certs", "plc.der", identity[0])
    signed = asks | {"security_policy": "Basic256Sha256", "security_mode": "Sign", "allow_plaintext_password": True}
    async with connected(plc.url, [point(1, "speed")], mode="read", **signed) as one:
        await collect(one, has(1, 1.0))


async def test_a_wrong_password_is_refused_over_a_secured_channel(plc, identity, pki, asks, tmp_path):
    put(pki / "trusted" / "certs", "plc.der", identity[0])
    (tmp_path / "password").write_text("guess", encoding="utf-8")
    with pytest.raises(Refused, match="'andon'"):
        await source(plc.url, [], **asks, **SECURED).connect()


async def test_a_policy_that_the_server_does_not_offer_is_refused_with_those_that_it_does(plc):
    with pytest.raises(Refused, match="Aes256_Sha256_RsaPss, SignAndEncrypt"):
        await source(plc.url, []).connect()


async def test_a_server_without_the_key_of_the_trusted_certificate_gets_nothing(pki, identity):
    impostor = (identity[0], certificate()[1])
    put(pki / "trusted" / "certs", "plc.der", identity[0])
    kinds = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
    async with Plc(policies=kinds, identity=impostor) as one:
        with pytest.raises((Refused, Unreachable)):
            await source(one.url, [], pki_dir=pki, **SECURED, deadline_ms=1000).connect()


async def test_our_own_certificate_is_made_once_and_its_key_is_private(pki):
    made = await asyncio.gather(*(asyncio.to_thread(own_identity, pki) for _ in range(3)))
    assert len({thumbprint(one.certificate) for one in made}) == 1
    key = pki / "own" / "private" / "andon.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert made[0].uri.startswith("urn:")
    assert made[0].certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=365)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"nonsense", "neither a DER nor a PEM"), (b"-----BEGIN X-----\n", "neither")],
)
async def test_a_certificate_file_that_cannot_be_used_is_named(tmp_path, content, reason):
    path, key = tmp_path / "own.der", tmp_path / "own.key"
    if content is not None:
        path.write_bytes(content)
    options = {"certificate": path, "private_key": key, "pki_dir": tmp_path / "pki"}
    with pytest.raises(Refused, match=reason) as refused:
        await source("opc.tcp://127.0.0.1:1", [], **SECURED, **options).connect()
    assert str(path) in str(refused.value)


async def test_a_key_of_another_certificate_and_an_expired_own_certificate_are_named(tmp_path):
    mine, other = certificate(), certificate(start=-30, days=2)
    private = tmp_path / "key.pem"

    def write_key(key):
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(*pem))

    write_key(other[1])
    with pytest.raises(Refused, match="does not belong"):
        read_identity(put(tmp_path, "own.der", mine[0]), private, "certificate")
    with pytest.raises(Refused, match="renew"):
        read_identity(put(tmp_path, "old.der", other[0]), private, "certificate")
    write_key(mine[1])
    assert read_identity(tmp_path / "own.der", private, "certificate").uri == SERVER_URI
