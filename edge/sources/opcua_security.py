"""Whom we believe, and who we are: certificates of OPC UA servers, the trust folder, our own certificate.

Owns the check of a server's certificate (OPC 10000-4, 6.1.3) before a byte of ours is signed for it, and the folder

    pki/own/certs, own/private      our certificate and its key (0600)
    pki/trusted/certs, trusted/crl  servers and authorities that a person decided to trust
    pki/issuers/certs, issuers/crl  authorities that complete a chain but are not trusted by themselves
    pki/rejected                    what servers presented and nobody trusts yet, the newest REJECTED_MAX

Rules: an empty folder trusts nobody; files count by content, not by name; every refusal says why and what to do.
All functions here block on files: callers run them in a thread.
"""

import itertools
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.errors import Refused

REJECTED_MAX: Final = 50
CHAIN_MAX: Final = 6
FILES_MAX: Final = 1000
"""Files read from one folder of the trust list."""
FILE_SIZE_MAX: Final = 1 << 20
KEY_SIZE_MIN: Final = 2048
OWN_KEY_SIZE: Final = 3072
OWN_VALIDITY: Final = timedelta(days=5 * 365)
_WEAK_HASHES: Final = ("md5", "sha1")

_own_lock = threading.Lock()
"""Several sources share one folder; only one of them makes the certificate."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An application or user certificate with its key. uri: the ApplicationUri in it, "" if there is none."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    uri: str
    path: Path

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def thumbprint(certificate: x509.Certificate) -> str:
    """Return the SHA-1 of the certificate in hex: the name that OPC UA tools show for it, no protection."""
    return certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - the thumbprint of OPC 10000-6, 6.2.2 is SHA-1


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise Refused(f"cannot read {what} {path}: {error.strerror or error}") from error
    if len(data) > FILE_SIZE_MAX:
        raise Refused(f"{what} {path} is larger than {FILE_SIZE_MAX} bytes")
    return data


def _certificates(data: bytes) -> list[x509.Certificate]:
    if data.lstrip().startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificates(data)
    return [x509.load_der_x509_certificate(data)]


def read_identity(certificate: Path, private_key: Path, what: str) -> Identity:
    """Read a certificate and its unencrypted RSA key, DER or PEM. Raises Refused."""
    try:
        found = _certificates(_read(certificate, f"the {what}"))[0]
    except ValueError as error:
        raise Refused(f"the {what} {certificate} is neither a DER nor a PEM certificate: {error}") from error
    data = _read(private_key, f"the private key of the {what}")
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            key = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Refused(
            f"the private key {private_key} cannot be used (RSA, no passphrase, PEM or DER): {error}"
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Refused(f"the private key {private_key} is not an RSA key, which the security policies need")
    public = found.public_key()
    if not isinstance(public, rsa.RSAPublicKey) or public.public_numbers() != key.public_key().public_numbers():
        raise Refused(f"the private key {private_key} does not belong to the certificate {certificate}")
    now = datetime.now(UTC)
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise Refused(
            f"the {what} {certificate} is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, now it is {now:%Y-%m-%d %H:%M}: renew it or set the clock"
        )
    uris = _names(found)[0]
    return Identity(found, key, uris[0] if uris else "", certificate)


def application_identity(certificate: Path | None, private_key: Path | None, pki: Path) -> Identity:
    """Return who we are: the configured certificate, else our own in `pki`. Raises Refused."""
    if certificate is not None and private_key is not None:
        return read_identity(certificate, private_key, "certificate")
    return own_identity(pki)


def own_identity(pki: Path) -> Identity:
    """Return the gateway's own certificate from `pki`/own, made on the first call. Raises Refused."""
    certificate = pki / "own" / "certs" / "andon.der"
    key = pki / "own" / "private" / "andon.pem"
    with _own_lock:
        if not (certificate.exists() and key.exists()):
            try:
                _make_own(certificate, key)
            except OSError as error:
                raise Refused(f"cannot write our own certificate to {certificate.parent}: {error.strerror}") from error
    return read_identity(certificate, key, "own certificate")


def _make_own(certificate_path: Path, key_path: Path) -> None:
    host = socket.gethostname()
    key = rsa.generate_private_key(public_exponent=65537, key_size=OWN_KEY_SIZE)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Andon on {host}"[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a server's clock may be behind ours
        .not_valid_after(now + OWN_VALIDITY)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:{host}:andon"), x509.DNSName(host)]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, True, True, True, False, True, False, False, False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_path.parent.mkdir(parents=True, exist_ok=True)
    key_path.parent.chmod(0o700)
    certificate_path.parent.mkdir(parents=True, exist_ok=True)
    _replace(key_path, pem, 0o600)
    _replace(certificate_path, certificate.public_bytes(serialization.Encoding.DER), 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that it is there whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """Return the URIs and the host names and addresses of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return [], []
    hosts = [name.lower().rstrip(".") for name in names.get_values_for_type(x509.DNSName)]
    hosts += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return names.get_values_for_type(x509.UniformResourceIdentifier), hosts


@dataclass(frozen=True, slots=True)
class TrustList:
    """What the folders hold. ignored: files that are neither a certificate nor a revocation list."""

    trusted: tuple[x509.Certificate, ...]
    issuers: tuple[x509.Certificate, ...]
    revocations: tuple[x509.CertificateRevocationList, ...]
    ignored: tuple[Path, ...]


def _files(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))[:FILES_MAX]


def read_trust(pki: Path) -> TrustList:
    """Read the trust list by content, whatever the files are called. Raises Refused if a file cannot be read."""
    certificates: dict[str, list[x509.Certificate]] = {"trusted": [], "issuers": []}
    revocations: list[x509.CertificateRevocationList] = []
    ignored: list[Path] = []
    for group, found in certificates.items():
        for path in _files(pki / group / "certs"):
            try:
                found.extend(_certificates(_read(path, "the certificate")))
            except ValueError:
                ignored.append(path)
        for path in _files(pki / group / "crl"):
            data = _read(path, "the revocation list")
            try:
                pem = data.lstrip().startswith(b"-----BEGIN")
                revocations.append(x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data))
            except ValueError:
                ignored.append(path)
    return TrustList(tuple(certificates["trusted"]), tuple(certificates["issuers"]), tuple(revocations), tuple(ignored))


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _chain(certificate: x509.Certificate, trust: TrustList) -> list[x509.Certificate]:
    """Return the certificate and its issuers as far as the folders know them."""
    chain = [certificate]
    while len(chain) < CHAIN_MAX and chain[-1].subject != chain[-1].issuer:
        above = [one for one in (*trust.trusted, *trust.issuers) if _issued(chain[-1], one)]
        if not above:
            break
        chain.append(above[0])
    return chain


def _age_fault(certificate: x509.Certificate, now: datetime) -> str:
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; check the clocks"
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it there or check the clock"
    return ""


def _strength_fault(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return "has no RSA key, which the security policies need"
    if key.key_size < KEY_SIZE_MIN:
        return f"has an RSA key of {key.key_size} bits; {KEY_SIZE_MIN} are needed: make a new one on the server"
    algorithm = certificate.signature_hash_algorithm
    if algorithm is not None and algorithm.name in _WEAK_HASHES:
        return f"is signed with {algorithm.name}; SHA-256 is needed: make a new one on the server"
    return ""


def _usage_fault(certificate: x509.Certificate) -> str:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        if not (usage.digital_signature and (usage.key_encipherment or usage.data_encipherment)):
            return "may not be used to sign and encrypt (KeyUsage)"
    except x509.ExtensionNotFound:
        pass
    except ValueError as error:
        return f"has extensions that cannot be read ({error})"
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
            return "is not meant for a server (ExtendedKeyUsage)"
    except x509.ExtensionNotFound:
        pass
    return ""


def _name_fault(certificate: x509.Certificate, host: str, uri: str, *, check_host: bool) -> str:
    uris, hosts = _names(certificate)
    if uri not in uris:
        return f"belongs to {', '.join(uris) or 'no application URI'}, but the server calls itself {uri}"
    if not check_host:
        return ""
    try:
        wanted = str(ip_address(host))
    except ValueError:
        wanted = host.lower().rstrip(".")
    if wanted not in hosts:
        return (
            f"is for {', '.join(hosts) or 'no host'}, but the url says {host}; "
            "use that name in url, or set check_host = false if the trusted file alone is to decide"
        )
    return ""


def _revocation_fault(chain: list[x509.Certificate], trust: TrustList, now: datetime, *, required: bool) -> str:
    for certificate, issuer in itertools.pairwise(chain):
        lists = [one for one in trust.revocations if one.issuer == issuer.subject and _signed(one, issuer)]
        current = [one for one in lists if one.next_update_utc is None or one.next_update_utc >= now]
        if any(one.get_revoked_certificate_by_serial_number(certificate.serial_number) for one in lists):
            return f"was revoked by {issuer.subject.rfc4514_string()}"
        if lists and not current:
            return f"cannot be checked: the revocation list of {issuer.subject.rfc4514_string()} is out of date"
        if required and not lists:
            return f"cannot be checked: there is no revocation list of {issuer.subject.rfc4514_string()}"
    return ""


def _signed(revocations: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return isinstance(key, rsa.RSAPublicKey) and revocations.is_signature_valid(key)


def check_server(
    der: bytes, pki: Path, host: str, uri: str, *, check_host: bool = True, require_crl: bool = False
) -> x509.Certificate:
    """Check the certificate that a server presented; return it if we may talk to its owner.

    der: the certificate, possibly followed by its chain. host: the host of the configured url. uri: the
    ApplicationUri that the server states. Raises Refused with the reason and what to do.
    """
    length = int.from_bytes(der[2:4], "big") + 4  # the first certificate of a chain; each is longer than 255 bytes
    try:
        certificate = x509.load_der_x509_certificate(der[:length])
    except ValueError as error:
        raise Refused(f"presents a certificate that cannot be read: {error}") from error
    now = datetime.now(UTC)
    trust = read_trust(pki)
    chain = _chain(certificate, trust)
    name = f"its certificate {thumbprint(certificate)}"
    if not any(one in trust.trusted for one in chain):
        raise Refused(_distrust(certificate, name, pki, trust))
    for one in chain:
        fault = _age_fault(one, now) or _strength_fault(one)
        if fault:
            raise Refused(f"{name if one is certificate else f'the issuer {one.subject.rfc4514_string()}'} {fault}")
    fault = (
        _usage_fault(certificate)
        or _name_fault(certificate, host, uri, check_host=check_host)
        or _revocation_fault(chain, trust, now, required=require_crl)
    )
    if fault:
        raise Refused(f"{name} {fault}")
    return certificate


def _distrust(certificate: x509.Certificate, name: str, pki: Path, trust: TrustList) -> str:
    """Put the certificate where a person finds it, and say what that person should do."""
    folder = pki / "rejected"
    copy = folder / f"{thumbprint(certificate)}.der"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(copy, certificate.public_bytes(serialization.Encoding.DER), 0o644)
        oldest = sorted(_files(folder), key=lambda path: path.stat().st_mtime)
        for path in oldest[: max(len(oldest) - REJECTED_MAX, 0)]:
            path.unlink(missing_ok=True)
        where = f"it was copied to {copy}; compare the thumbprint with the server's, then move the file to"
    except OSError as error:
        where = f"it could not be copied to {copy} ({error.strerror}); get it from the server and put it into"
    ignored = f"; no certificate: {', '.join(map(str, trust.ignored[:5]))}" if trust.ignored else ""
    return (
        f"{name} ({certificate.subject.rfc4514_string()}) is not trusted: {where} {pki / 'trusted' / 'certs'}{ignored}"
    )
