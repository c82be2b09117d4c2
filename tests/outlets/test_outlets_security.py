"""Who the gateway is at the broker and whom it believes: passwords, certificates, access control."""

import datetime as dt
import ipaddress
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from outlets_peers import Mosquitto, Plant, Subscriber, mosquitto, options, running, until

from plant.batch import of_rows

PRESS = "Acme/Ulm/pressing/line2/press"


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(self, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = _certificate(name, key, self.certificate.subject, self.key, subject)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        _write(paths[0], certificate, paths[1], key)
        return paths


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey, extension
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(signer, hashes.SHA256())
    )


def _write(certificate_file: Path, certificate: x509.Certificate, key_file: Path, key: ec.EllipticCurvePrivateKey):
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    key_file.chmod(0o600)


def authority(folder: Path, name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(name, key, None, key, x509.BasicConstraints(ca=True, path_length=None))
    made = Authority(folder, name, key, certificate)
    _write(made.file, certificate, folder / f"{name}.key", key)
    return made


@pytest.fixture(scope="module")
def plant_ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"), "plant-ca")


def tls_lines(ca: Authority, address: str = "127.0.0.1") -> list[str]:
    certificate, key = ca.issue(f"broker-{address}", address)
    return [f"cafile {ca.file}", f"certfile {certificate}", f"keyfile {key}"]


async def _works(plant: Plant) -> None:
    await plant.connected()
    plant.step(plant.transition("a"))
    plant.commit()
    await plant.sent()


async def _refused(plant: Plant, sentence: str) -> None:
    await until(lambda: plant.outlet.view().state == "refused", lambda: str(plant.outlet.view()))
    assert sentence in plant.outlet.view().sentence
    assert f"127.0.0.1:{plant.outlet.options.port}" in plant.outlet.view().sentence


@pytest.fixture
def users(tmp_path: Path) -> list[str]:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    tool = ["mosquitto_passwd", "-b", str(passwords)]
    for user in ("box1", "scada"):
        subprocess.run([*tool, user, f"secret of {user}"], check=True)
    return [f"password_file {passwords}"]


def _password(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "secret"
    file.write_text(text)
    return file


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_right_password_opens(tmp_path: Path, users: list[str], protocol: str) -> None:
    with mosquitto(tmp_path, *users, anonymous=False) as broker:
        password_file = _password(tmp_path, "secret of box1\n")
        async with running(
            Plant(options(broker.port, user="box1", password_file=password_file, protocol=protocol))
        ) as plant:
            await _works(plant)


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_the_wrong_password_is_refused_and_tried_again_slowly(
    tmp_path: Path, users: list[str], protocol: str
) -> None:
    with mosquitto(tmp_path, *users, anonymous=False) as broker:
        password_file = _password(tmp_path, "wrong")
        chosen = options(broker.port, user="box1", password_file=password_file, protocol=protocol)
        async with running(Plant(chosen)) as plant:
            await _refused(plant, "check user, password_file")
            password_file.write_text("secret of box1")
            await _works(plant)
            assert plant.outlet.counters()["refusals"] >= 1


async def test_a_missing_password_file_is_a_refusal_that_names_it(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        async with running(Plant(options(broker.port, user="box1", password_file=tmp_path / "gone"))) as plant:
            await _refused(plant, "gone")


async def test_tls_with_a_client_certificate(tmp_path: Path, plant_ca: Authority) -> None:
    certificate, key = plant_ca.issue("box1")
    lines = [*tls_lines(plant_ca), "require_certificate true", "use_identity_as_username true"]
    with mosquitto(tmp_path, *lines, anonymous=False) as broker:
        chosen = options(broker.port, tls=True, ca_file=plant_ca.file, certificate_file=certificate, key_file=key)
        async with running(Plant(chosen)) as plant:
            await _works(plant)
            assert plant.outlet.view().address.startswith("mqtts://")


async def test_a_broker_signed_by_somebody_else_is_refused(tmp_path: Path, plant_ca: Authority) -> None:
    other = authority(tmp_path, "other-ca")
    with mosquitto(tmp_path, *tls_lines(plant_ca)) as broker:
        async with running(Plant(options(broker.port, tls=True, ca_file=other.file))) as plant:
            await _refused(plant, "is not trusted")


async def test_a_broker_whose_certificate_names_another_host_is_refused(tmp_path: Path, plant_ca: Authority) -> None:
    with mosquitto(tmp_path, *tls_lines(plant_ca, "10.1.2.3")) as broker:
        async with running(Plant(options(broker.port, tls=True, ca_file=plant_ca.file))) as plant:
            await _refused(plant, "is not trusted")


async def test_a_broker_that_wants_a_certificate_we_do_not_have_does_not_let_us_in(
    tmp_path: Path, plant_ca: Authority
) -> None:
    with mosquitto(tmp_path, *tls_lines(plant_ca), "require_certificate true") as broker:
        async with running(Plant(options(broker.port, tls=True, ca_file=plant_ca.file))) as plant:
            await until(lambda: plant.outlet.view().sentence)
            assert plant.outlet.view().state in ("connecting", "refused")
            assert plant.outlet.view().published == 0


async def test_tls_towards_a_port_without_tls_says_so(tmp_path: Path, plant_ca: Authority) -> None:
    with mosquitto(tmp_path) as broker:
        async with running(Plant(options(broker.port, tls=True, ca_file=plant_ca.file))) as plant:
            await until(lambda: plant.outlet.view().sentence)
            assert "TLS" in plant.outlet.view().sentence


def acl(tmp_path: Path, *denied: str) -> list[str]:
    file = tmp_path / "acl"
    file.write_text("topic readwrite #\n" + "".join(f"topic deny {topic}\n" for topic in denied))
    file.chmod(0o600)
    return [f"acl_file {file}"]


async def test_a_denied_topic_is_told_and_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with mosquitto(tmp_path, *acl(tmp_path, f"{PRESS}/event")) as broker, Subscriber(broker.port) as scada:
        async with running(Plant(options(broker.port, protocol="5"))) as plant:
            await plant.connected()
            plant.step(plant.transition("a"), plant.transition("b", asset="milling/line1/cnc"))
            plant.commit()
            await scada.until(lambda: scada.on("/alarm/a") and scada.on("cnc/event"))
            await until(lambda: plant.outlet.view().state == "refused")
            view = plant.outlet.view()
            assert f"does not let us publish to {PRESS}/event" in view.sentence
            assert view.unacknowledged == 1
            assert plant.journal.cursors.get("mqtt", 0) == 0
            allow_all(broker, tmp_path)
            await plant.sent()
            await scada.until(lambda: scada.on("press/event"))
            assert (plant.outlet.view().state, plant.outlet.view().sentence) == ("connected", "")


def allow_all(broker: Mosquitto, tmp_path: Path) -> None:
    acl(tmp_path)
    assert broker.process is not None
    broker.process.send_signal(1)


async def test_a_denied_look_at_the_retained_alarms_still_clears_the_normal_ones(tmp_path: Path) -> None:
    import json

    with mosquitto(tmp_path, "persistence false") as broker, Subscriber(broker.port) as other:
        left = {"v": 1, "gateway": "box1", "alarm": "a", "occurrence": "o", "state": "B"}
        other.publish(f"{PRESS}/alarm/a", json.dumps(left), retain=True)
        plant = Plant(options(broker.port))
        plant.alarms = {("pressing/line2/press", "a"): plant.transition("a", "A")}
        from edge.mqtt.wire import Subscribed

        async with running(plant):
            await plant.connected()
            plant.outlet._states.reset(plant.alarms.values())
            plant.outlet._on_events([Subscribed(tuple(plant.outlet.topics.alarm_filters()), "Not authorized")])
            await other.until(lambda: None in other.on("/alarm/a"))


async def test_the_access_control_of_the_manual_is_enough_and_no_more(tmp_path: Path, users: list[str]) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()
    lines = manual.split("```text\n")[1].split("```")[0].replace("operator-panel", "scada")
    file = tmp_path / "acl"
    file.write_text(lines)
    file.chmod(0o600)
    with (
        mosquitto(tmp_path, *users, f"acl_file {file}", anonymous=False) as broker,
        Subscriber(broker.port, user="scada", password="secret of scada") as scada,
    ):
        password_file = _password(tmp_path, "secret of box1")
        chosen = options(broker.port, user="box1", password_file=password_file)
        async with running(Plant(chosen)) as plant:
            await plant.connected()
            now = time.time_ns()
            plant.step(
                plant.transition("a"), plant.transition("full", asset=""), readings=of_rows([(0, now, 1.0, 192)])
            )
            plant.commit()
            await plant.sent()
            scada.publish("Acme/Ulm/_gateway/box1/command", '{"id": "1", "name": "snapshot"}')
            for ending in (
                "/alarm/a",
                "/alarm/full",
                "press/event",
                "box1/event",
                "/value",
                "/status",
                "/snapshot",
                "/reply",
            ):
                await scada.until(lambda ending=ending: scada.on(ending), ending)
            assert plant.outlet.view().sentence == ""
            assert plant.outlet.counters()["denied_messages"] == 0
        cleared = len(scada.on("/alarm/a"))
        scada.publish(f"{PRESS}/alarm/a", b"", retain=True)
        scada.publish("Acme/Ulm/_gateway/box1/command", b"{}")
        await scada.until(lambda: any(m.topic.endswith("/status") and b"offline" in m.payload for m in scada.messages))
        assert len(scada.on("/alarm/a")) == cleared
