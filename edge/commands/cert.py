"""`andon cert`: the certificates of the OPC UA devices: our own, and whom we trust.

Works on the folders that `edge.sources.opcua_security` describes; the running gateway looks at them at each connection,
so nothing needs a restart.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.commands import config_option, failed, json_option
from edge.errors import AndonError, ConfigError, Problem, Refused

if TYPE_CHECKING:
    from cryptography import x509

ROOMS = {"own": "own/certs", "trusted": "trusted/certs", "issuers": "issuers/certs", "rejected": "rejected"}
"""Where certificates lie below a folder of certificates, by what they are."""
EXPIRY_WARNING = timedelta(days=30)
THUMBPRINT_LENGTH_MIN = 6
FILES_MAX = 1000
FILE_SIZE_MAX = 1 << 20

pki_option = click.option(
    "--pki", type=click.Path(path_type=Path, file_okay=False), help="Folder of certificates. Default: the gateway's."
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate and the file that holds it. room: a key of ROOMS."""

    room: str
    path: Path
    certificate: "x509.Certificate"

    @property
    def thumbprint(self) -> str:
        from edge.sources.opcua_security import thumbprint

        return thumbprint(self.certificate)

    @property
    def sha256(self) -> str:
        from cryptography.hazmat.primitives import hashes

        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Application URIs, and host names with addresses."""
        from cryptography import x509

        try:
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return [], []
        addresses = [str(one) for one in names.get_values_for_type(x509.IPAddress)]
        return (
            names.get_values_for_type(x509.UniformResourceIdentifier),
            names.get_values_for_type(x509.DNSName) + addresses,
        )

    def age(self, now: datetime) -> str:
        """Say what is to be known of its validity, "" if nothing is."""
        end = self.certificate.not_valid_after_utc
        if now > end:
            return f"expired {(now - end).days} days ago"
        if now < self.certificate.not_valid_before_utc:
            return "not valid yet: check the clocks"
        return f"expires in {(end - now).days} days" if end - now < EXPIRY_WARNING else ""

    def as_data(self) -> dict[str, Any]:
        uris, hosts = self.names
        return {
            "room": self.room,
            "file": str(self.path),
            "subject": self.certificate.subject.rfc4514_string(),
            "issuer": self.certificate.issuer.rfc4514_string(),
            "application_uri": uris[0] if uris else "",
            "hosts": hosts,
            "thumbprint": self.thumbprint,
            "sha256": self.sha256,
            "not_before": self.certificate.not_valid_before_utc.isoformat(),
            "not_after": self.certificate.not_valid_after_utc.isoformat(),
            "expired": datetime.now(UTC) > self.certificate.not_valid_after_utc,
        }


def read_certificate(path: Path) -> "x509.Certificate | None":
    """Read a certificate, DER or PEM; None if the file is none. Raises Refused if it cannot be read."""
    from cryptography import x509

    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX)
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror or error}; run this as the user of the gateway") from error
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except ValueError:
        return None


def kept(pki: Path, rooms: Sequence[str] = tuple(ROOMS)) -> Iterator[Kept]:
    """Yield the certificates of a folder. Raises Refused if it may not be read."""
    for room in rooms:
        folder = pki / ROOMS[room]
        try:
            files = sorted(folder.iterdir())[:FILES_MAX] if folder.is_dir() else []
        except OSError as error:
            raise Refused(f"cannot read {folder}: {error.strerror}; run this as the user of the gateway") from error
        for path in files:
            if path.is_file() and not path.name.startswith("."):
                certificate = read_certificate(path)
                if certificate is not None:
                    yield Kept(room, path, certificate)


def folders(folder: Path | None, pki: Path | None) -> list[Path]:
    """Return the folders of certificates: the one that is named, or those of the configured OPC UA devices."""
    from edge.commands.devices import read_gateway, state_dir

    if pki is not None:
        return [pki]
    toml = read_gateway(folder)
    devices = [one for one in toml.data.get("device", []) if isinstance(one, dict) and one.get("type") == "opcua"]
    named = dict.fromkeys(str(one.get("pki_dir", "pki")) for one in devices) or {"pki": None}
    return [state_dir(toml) / one for one in named]


def find(thumbprint: str, places: Sequence[Path], rooms: Sequence[str]) -> Kept | None:
    """Return the one certificate whose thumbprint begins so. Raises Refused if there are several."""
    wanted = "".join(c for c in thumbprint.lower() if c.isalnum())
    if len(wanted) < THUMBPRINT_LENGTH_MIN or set(wanted) - set("0123456789abcdef"):
        raise ConfigError(
            [
                Problem(
                    "THUMBPRINT", 0, f"{thumbprint!r} is none: give at least {THUMBPRINT_LENGTH_MIN} of its hex digits"
                )
            ]
        )
    found = [
        one
        for pki in places
        for one in kept(pki, rooms)
        if wanted in (one.thumbprint[: len(wanted)], one.sha256[: len(wanted)])
    ]
    if len({one.sha256 for one in found}) > 1:
        raise Refused(f"{len(found)} certificates begin with {thumbprint}: give more digits")
    return found[0] if found else None


@click.group()
def cert() -> None:
    """Certificates of OPC UA devices: our own, and whom we trust."""


def _print(certificates: Sequence[Kept]) -> None:
    now = datetime.now(UTC)
    for one in certificates:
        uris, hosts = one.names
        age = one.age(now)
        colour = {"own": "cyan", "trusted": "green", "rejected": "red"}.get(one.room)
        click.echo(click.style(one.room.ljust(9), fg=colour, bold=True) + one.certificate.subject.rfc4514_string())
        click.echo(f"         thumbprint   {one.thumbprint}")
        click.echo(f"         sha256       {one.sha256}")
        if uris:
            click.echo(f"         application  {uris[0]}" + (f" on {', '.join(hosts)}" if hosts else ""))
        valid = f"{one.certificate.not_valid_before_utc:%Y-%m-%d} to {one.certificate.not_valid_after_utc:%Y-%m-%d}"
        click.echo(f"         valid        {valid}" + click.style(f"  {age}" if age else "", fg="yellow"))
        click.echo(click.style(f"         file         {one.path}", dim=True))


def _tell(certificates: Sequence[Kept], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([one.as_data() for one in certificates], indent=1))
    else:
        _print(certificates)


@cert.command()
@config_option
@pki_option
@json_option
def show(folder: Path | None, pki: Path | None, *, as_json: bool) -> None:
    """Show our own certificate, as the server's engineer needs it to trust us. Exit code 1 if there is none."""
    try:
        places = folders(folder, pki)
        own = [one for place in places for one in kept(place, ("own",))]
    except AndonError as error:
        raise failed(error) from error
    _tell(own, as_json=as_json)
    if not own:
        where = ", ".join(str(place) for place in places)
        click.secho(f"there is no certificate of our own in {where} yet; make it with: andon cert create", err=True)
        raise click.exceptions.Exit(1)


@cert.command(name="list")
@config_option
@pki_option
@json_option
def list_all(folder: Path | None, pki: Path | None, *, as_json: bool) -> None:
    """List every certificate: our own, trusted ones, issuers, and those that servers presented and nobody trusts."""
    try:
        places = folders(folder, pki)
        found = [one for place in places for one in kept(place)]
    except AndonError as error:
        raise failed(error) from error
    _tell(found, as_json=as_json)
    if not found and not as_json:
        click.echo(f"no certificate in {', '.join(str(place) for place in places)}")
    elif not as_json and any(one.room == "rejected" for one in found):
        click.echo(
            "\nCompare a rejected thumbprint with the one that the server shows, then: andon cert trust THUMBPRINT"
        )


@cert.command()
@config_option
@pki_option
@click.option("--renew", is_flag=True, help="Make a new one although there is one; servers must trust it anew.")
@json_option
def create(folder: Path | None, pki: Path | None, *, renew: bool, as_json: bool) -> None:
    """Make our own certificate and key, if there is none; a first connection would do it too."""
    from edge.sources.opcua_security import own_identity

    try:
        for place in folders(folder, pki):
            owner = _owner(place)
            if renew:
                _retire(place)
            own_identity(place)
            _give(place, owner)
        own = [one for place in folders(folder, pki) for one in kept(place, ("own",))]
    except AndonError as error:
        raise failed(error, "the old one expired? then: andon cert create --renew") from error
    _tell(own, as_json=as_json)


def _owner(place: Path) -> os.stat_result:
    """Return whose folder it is, or will be: the gateway must be able to read what root makes for it."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return place.stat()


def _give(place: Path, owner: os.stat_result) -> None:
    if os.geteuid() != 0 or (owner.st_uid, owner.st_gid) == (0, 0):
        return
    for path in (place, *place.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


def _retire(place: Path) -> None:
    """Put our certificate and key aside; nothing is deleted."""
    for one in kept(place, ("own",)):
        old = place / "own" / "retired"
        try:
            old.mkdir(mode=0o700, parents=True, exist_ok=True)
            key = place / "own" / "private" / f"{one.path.stem}.pem"
            one.path.rename(old / f"{one.thumbprint}.der")
            if key.exists():
                key.rename(old / f"{one.thumbprint}.pem")
        except OSError as error:
            raise Refused(f"cannot put {one.path} aside: {error.strerror}") from error


@cert.command()
@config_option
@pki_option
@click.argument("thumbprint")
@json_option
def trust(folder: Path | None, pki: Path | None, thumbprint: str, *, as_json: bool) -> None:
    """Trust a server that was rejected: THUMBPRINT is the beginning of its thumbprint, or a file with a certificate."""
    try:
        places = folders(folder, pki)
        if Path(thumbprint).is_file():
            moved = _take_in(Path(thumbprint), places[0])
        else:
            moved = _move(thumbprint, places, ("rejected",), "trusted")
    except AndonError as error:
        raise failed(error, "see what there is with: andon cert list") from error
    if as_json:
        _tell([moved], as_json=True)
        return
    click.echo(f"trusted: {moved.certificate.subject.rfc4514_string()}, thumbprint {moved.thumbprint}")
    if age := moved.age(datetime.now(UTC)):
        click.secho(f"but it {age}" if age.startswith("expire") else f"but it is {age}", fg="yellow", err=True)


@cert.command()
@config_option
@pki_option
@click.argument("thumbprint")
@json_option
def reject(folder: Path | None, pki: Path | None, thumbprint: str, *, as_json: bool) -> None:
    """Trust a server, or an issuer, no more; a connection that stands lasts until it is next opened."""
    try:
        moved = _move(thumbprint, folders(folder, pki), ("trusted", "issuers"), "rejected")
    except AndonError as error:
        raise failed(error, "see what there is with: andon cert list") from error
    if as_json:
        _tell([moved], as_json=True)
    else:
        click.echo(f"rejected: {moved.certificate.subject.rfc4514_string()}, thumbprint {moved.thumbprint}")


def _move(thumbprint: str, places: Sequence[Path], rooms: Sequence[str], to: str) -> Kept:
    found = find(thumbprint, places, rooms)
    if found is None:
        there = find(thumbprint, places, (to,))
        if there is not None:
            return there
        where = " nor ".join(rooms)
        raise Refused(f"no certificate whose thumbprint begins with {thumbprint} is {where}")
    pki = next(place for place in places if found.path.is_relative_to(place))
    path = pki / ROOMS[to] / f"{found.thumbprint}.der"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        found.path.replace(path)
    except OSError as error:
        raise Refused(f"cannot move {found.path} to {path}: {error.strerror}") from error
    return Kept(to, path, found.certificate)


def _take_in(source: Path, pki: Path) -> Kept:
    certificate = read_certificate(source)
    if certificate is None:
        raise Refused(f"{source} is neither a DER nor a PEM certificate")
    new = Kept("trusted", source, certificate)
    path = pki / ROOMS["trusted"] / f"{new.thumbprint}{source.suffix or '.der'}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    except OSError as error:
        raise Refused(f"cannot copy {source} to {path}: {error.strerror}") from error
    return Kept("trusted", path, certificate)
