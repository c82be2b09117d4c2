"""`andon cert` on the folders of certificates that the OPC UA devices use."""

import json
import stat

import pytest
from commands_peers import call
from cryptography.hazmat.primitives import serialization
from opcua_peers import SERVER_URI, certificate, put

from edge.errors import Refused
from edge.sources.opcua_security import check_server, own_identity, thumbprint


@pytest.fixture
def pki(tmp_path):
    return tmp_path / "pki"


def listed(pki):
    return {(one["room"], one["thumbprint"]) for one in json.loads(call("cert", "list", "--pki", pki, "--json").stdout)}


def test_our_certificate_is_made_once_shown_and_renewed(pki):
    assert call("cert", "show", "--pki", pki).exit_code == 1
    made = json.loads(call("cert", "create", "--pki", pki, "--json").stdout)
    (shown,) = json.loads(call("cert", "show", "--pki", pki, "--json").stdout)
    assert made == [shown]
    identity = own_identity(pki)
    assert shown["thumbprint"] == thumbprint(identity.certificate)
    assert shown["application_uri"] == identity.uri
    assert stat.S_IMODE((pki / "own" / "private" / "andon.pem").stat().st_mode) == 0o600
    text = call("cert", "create", "--pki", pki).stdout
    assert shown["thumbprint"] in text
    call("cert", "create", "--pki", pki, "--renew")
    assert thumbprint(own_identity(pki).certificate) != shown["thumbprint"]
    assert (pki / "own" / "retired" / f"{shown['thumbprint']}.pem").exists()


def test_a_server_is_trusted_after_the_command_and_not_before(pki):
    one, _ = certificate()
    der = one.public_bytes(serialization.Encoding.DER)
    with pytest.raises(Refused, match="not trusted"):
        check_server(der, pki, "127.0.0.1", SERVER_URI)
    colons = ":".join(thumbprint(one)[i : i + 2] for i in range(0, 40, 2)).upper()
    result = call("cert", "trust", colons, "--pki", pki)
    assert result.exit_code == 0
    assert thumbprint(one) in result.stdout
    assert check_server(der, pki, "127.0.0.1", SERVER_URI)
    assert listed(pki) == {("trusted", thumbprint(one))}
    assert call("cert", "trust", colons, "--pki", pki).exit_code == 0
    assert call("cert", "reject", thumbprint(one)[:8], "--pki", pki).exit_code == 0
    with pytest.raises(Refused, match="not trusted"):
        check_server(der, pki, "127.0.0.1", SERVER_URI)
    assert listed(pki) == {("rejected", thumbprint(one))}


def test_a_certificate_from_a_stick_is_trusted(pki, tmp_path):
    one, _ = certificate()
    path = tmp_path / "plc.pem"
    path.write_bytes(one.public_bytes(serialization.Encoding.PEM))
    assert call("cert", "trust", path, "--pki", pki).exit_code == 0
    assert listed(pki) == {("trusted", thumbprint(one))}
    path.write_text("hello")
    result = call("cert", "trust", path, "--pki", pki)
    assert result.exit_code == 1
    assert "neither a DER nor a PEM certificate" in result.stderr


def test_expiry_is_told(pki):
    put(pki / "trusted" / "certs", "old.der", certificate(start=-30, days=20)[0])
    put(pki / "issuers" / "certs", "soon.der", certificate(days=5, ca=True)[0])
    text = call("cert", "list", "--pki", pki).stdout
    assert "expired 10 days ago" in text
    assert "expires in 3 days" in text or "expires in 4 days" in text


def test_mistakes_are_sentences(pki, tmp_path):
    result = call("cert", "trust", "abcdef12", "--pki", pki)
    assert (result.exit_code, "no certificate whose thumbprint begins with abcdef12" in result.stderr) == (1, True)
    assert call("cert", "trust", "xyz", "--pki", pki).exit_code == 2
    assert call("cert", "list", "--config", tmp_path).exit_code == 2
    assert "no certificate in" in call("cert", "list", "--pki", pki).stdout
    (pki / "rejected").mkdir(parents=True)
    (pki / "rejected" / "readme.txt").write_text("no certificate")
    assert listed(pki) == set()


def test_every_folder_of_the_configured_devices_is_looked_at(tmp_path):
    (tmp_path / "gateway.toml").write_text(
        '[gateway]\nstate_dir = "state"\n'
        '[[device]]\nname = "a"\ntype = "opcua"\n'
        '[[device]]\nname = "b"\ntype = "opcua"\npki_dir = "other"\n'
        '[[device]]\nname = "c"\ntype = "modbus"\n'
    )
    one, two = certificate()[0], certificate()[0]
    put(tmp_path / "state" / "pki" / "rejected", "one.der", one)
    put(tmp_path / "state" / "other" / "rejected", "two.der", two)
    assert call("cert", "trust", thumbprint(two), "--config", tmp_path).exit_code == 0
    assert (tmp_path / "state" / "other" / "trusted" / "certs" / f"{thumbprint(two)}.der").exists()
    rows = json.loads(call("cert", "list", "--config", tmp_path, "--json").stdout)
    assert {(row["room"], row["thumbprint"]) for row in rows} == {
        ("rejected", thumbprint(one)),
        ("trusted", thumbprint(two)),
    }
