"""Addresses and options of the OPC UA source: what is accepted, what is refused and with which words."""

import uuid

import pytest
from pydantic import ValidationError

from edge.sources.opcua import NodeAddress, OpcuaOptions, parse_node
from edge.sources.opcua_points import Namespaces, Unresolved

GUID = uuid.UUID("09087e75-8e5e-499b-954f-f2a9603db28a")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("nsu=urn:plc;s=Line.Speed", NodeAddress("urn:plc", None, "s", "Line.Speed")),
        ("nsu=http://a/b;i=85", NodeAddress("http://a/b", None, "i", 85)),
        ("nsu=urn:a%3Bb%25;i=1", NodeAddress("urn:a;b%", None, "i", 1)),
        ('ns=3;s="DB1"."Speed;x=1"', NodeAddress(None, 3, "s", '"DB1"."Speed;x=1"')),
        ("i=2258", NodeAddress(None, 0, "i", 2258)),
        (f"ns=2;g={GUID}", NodeAddress(None, 2, "g", GUID)),
        ("ns=2;b=AQID", NodeAddress(None, 2, "b", b"\1\2\3")),
        (" ns=65535;i=4294967295 ", NodeAddress(None, 65535, "i", 4294967295)),
    ],
)
def test_addresses_are_understood(text, address):
    assert parse_node(text) == address


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no node address"),
        ("Line.Speed", "no node address"),
        ("ns=2,s=x", "no node address"),
        ("ns=two;s=x", "'two'"),
        ("ns=65536;s=x", "0 to 65535"),
        ("ns=-1;s=x", "0 to 65535"),
        ("nsu=;s=x", "URI after nsu= is empty"),
        ("ns=2;i=abc", "names go after s="),
        ("ns=2;i=4294967296", "4294967295"),
        ("ns=2;s=", "nothing stands after s="),
        ("ns=2;g=123", "GUID"),
        ("ns=2;b=***", "base64"),
        ("ns=2;s=" + "x" * 5000, "5000 characters"),
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(text, reason):
    with pytest.raises(ValueError, match=r"=|address") as refused:
        parse_node(text)
    assert reason in str(refused.value)


def test_an_index_follows_the_uri_that_it_had_at_first_contact():
    names = Namespaces()
    plain, named = parse_node("ns=2;s=x"), parse_node("nsu=urn:plc;s=x")
    names.update(["ua", "urn:server", "urn:plc"])
    assert names.resolve(plain) == names.resolve(named)
    assert names.update(["ua", "urn:server", "urn:new", "urn:plc"]) == [("urn:plc", 2, 3)]
    assert names.resolve(plain).NamespaceIndex == names.resolve(named).NamespaceIndex == 3
    names.update(["ua", "urn:server", "urn:new"])
    for address in (plain, named):
        with pytest.raises(Unresolved, match="urn:plc"):
            names.resolve(address)


def test_the_own_namespace_of_a_renamed_server_stays_index_1():
    names = Namespaces({1: "urn:old-host"})
    names.update(["ua", "urn:new-host"])
    assert names.resolve(parse_node("ns=1;i=7")).NamespaceIndex == 1


def test_first_contact_can_come_from_an_earlier_run():
    names = Namespaces({2: "urn:plc"})
    names.update(["ua", "urn:server", "urn:new", "urn:plc"])
    assert names.resolve(parse_node("ns=2;i=7")).NamespaceIndex == 3


def options(**more):
    return OpcuaOptions(**{"name": "plc", "url": "opc.tcp://plc:4840"} | more)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"url": "http://plc"}, "opc.tcp://"),
        ({"url": "opc.tcp://"}, "opc.tcp://"),
        ({"url": "opc.tcp://plc:99999"}, "opc.tcp://"),
        ({"url": "opc.tcp://andon:secret@plc"}, "user and password_file"),
        ({"security_policy": "Basic256Sha256"}, "do not go together"),
        ({"security_mode": "Sign"}, "do not go together"),
        ({"security_policy": "Basic128Rsa15", "security_mode": "Sign"}, "Basic256Sha256"),
        ({"user": "u", "password_file": "p"}, "allow_plaintext_password"),
        (
            {"user": "u", "password_file": "p", "security_policy": "Basic256Sha256", "security_mode": "Sign"},
            "allow_plaintext_password",
        ),
        ({"password_file": "p"}, "needs user"),
        ({"certificate": "c"}, "belong together"),
        ({"user_certificate": "c"}, "belong together"),
        ({"session_timeout_s": 3600}, "120"),
        ({"retry_ms": 9000, "retry_ms_max": 100}, "retry_ms_max"),
        ({"sampling": 5}, "sampling"),
    ],
)
def test_options_that_cannot_work_are_refused(given, reason):
    with pytest.raises(ValidationError) as refused:
        options(**given)
    assert reason in str(refused.value)


def test_a_password_may_travel_encrypted_or_where_somebody_accepts_the_risk():
    options(user="u", password_file="p", security_policy="Aes256_Sha256_RsaPss", security_mode="SignAndEncrypt")
    options(user="u", password_file="p", allow_plaintext_password=True)


def test_every_option_is_described():
    assert all(field.description for field in OpcuaOptions.model_fields.values())
