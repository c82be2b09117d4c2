"""When certificates run out: ours and the server's, told long before; and when ours was renewed.

Owns the judgement. Leaves looking at files to `look`, which blocks and is called in a thread, and the alarm to the
supervisor. A certificate that is renewed in its file is taken for the next connection, which begins at once.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from edge.errors import Refused
from edge.sources import Notice
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_security import application_identity, thumbprint

STAGES: Final = ((timedelta(days=7), "high"), (timedelta(days=30), "medium"), (timedelta(days=60), "low"))
"""Time left, and how urgent it then is."""


def judge(own: bytes, server: bytes, now: datetime) -> Notice | None:
    """Return what is to be said of our and the server's certificate (DER, empty = none), the more urgent first."""
    found = []
    for der, whose, remedy in (
        (own, "our certificate", "Make a new one with andon cert, and let the server trust it before that day"),
        (server, "the server's certificate", "Renew it on the server, and trust the new one with andon cert"),
    ):
        if der:
            certificate = x509.load_der_x509_certificate(der)
            left = certificate.not_valid_after_utc - now
            priority = next((priority for limit, priority in STAGES if left <= limit), "")
            if priority:
                found.append((left, priority, _sentence(certificate, whose, left, remedy)))
    if not found:
        return None
    found.sort(key=lambda one: one[0])
    return Notice(" ".join(sentence for _, _, sentence in found), found[0][1])


def _sentence(certificate: x509.Certificate, whose: str, left: timedelta, remedy: str) -> str:
    end = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    when = f"expired on {end}" if left <= timedelta(0) else f"expires in {left.days} days, on {end}"
    return f"{whose[0].upper()}{whose[1:]} {thumbprint(certificate)} {when}. {remedy}."


def look(options: OpcuaOptions, own: bytes, server: bytes) -> tuple[Notice | None, bool]:
    """Judge the certificates in use; tell also whether another one of ours lies in its file now. Blocks on files."""
    is_renewed = False
    if own:
        try:
            is_renewed = application_identity(options.certificate, options.private_key, options.pki_dir).der != own
        except Refused:
            is_renewed = False  # half written, or gone: the one in use is the better one
    return judge(own, server, datetime.now(UTC)), is_renewed
