import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from edge.mqtt.options import is_loopback
from edge.outlets.options import MqttOptions


def test_a_password_travels_in_plaintext_only_to_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    assert MqttOptions(user="u", password_file=file, host="127.0.0.1").password() == "secret"
    assert MqttOptions(user="u", password_file=file, host="broker.plant", tls=True).password() == "secret"
    assert MqttOptions(user="u", password_file=file, host="broker.plant", allow_plaintext=True).password() == "secret"
    with pytest.raises(ValidationError, match=r"would travel readable to broker\.plant: set tls = true"):
        MqttOptions(user="u", password_file=file, host="broker.plant")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tls": True, "certificate_file": "c"}, "belong together"),
        ({"ca_file": "c"}, "need tls = true"),
        ({"password_file": "p"}, "needs a user"),
        ({"reconnect_delay_ms_min": 500, "reconnect_delay_ms_max": 100}, "is below"),
        ({"event_kinds": ["alarm", "alarms"]}, "no such kind of event: alarms; there are"),
        ({"prot": 1883}, "Extra inputs"),
        ({"port": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        MqttOptions.model_validate(fields)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    options = MqttOptions(user="u", password_file=tmp_path / "missing", tls=True, ca_file=broken, host="broker.plant")
    password, tls = options.problems()
    assert "missing" in password
    assert "broken.pem cannot be used" in tls
    (tmp_path / "empty").write_text("\n")
    assert "is empty" in MqttOptions(user="u", password_file=tmp_path / "empty").problems()[0]
    assert MqttOptions().problems() == []


def test_every_option_is_described() -> None:
    assert all(field.description for field in MqttOptions.model_fields.values())


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("broker", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_known_without_a_name_server(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_manual_lists_every_option_with_its_default() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()
    for name, field in MqttOptions.model_fields.items():
        default = json.dumps(field.default if not isinstance(field.default, tuple) else list(field.default))
        shown = "none" if default == "null" else f"`{default}`"
        assert f"| `{name}` | {shown} | {field.description} |" in manual, name
