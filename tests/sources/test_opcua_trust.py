"""Nobody is trusted by default: which certificates of servers are believed, and the words for those that are not."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from opcua_peers import SERVER_URI, certificate, put, revocations

from edge.errors import Refused
from edge.sources.opcua_security import REJECTED_MAX, check_server, thumbprint


@pytest.fixture
def pki(tmp_path):
    return tmp_path / "pki"


def check(one, pki, host="127.0.0.1", uri=SERVER_URI, **more):
    return check_server(one.public_bytes(serialization.Encoding.DER), pki, host, uri, **more)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"start": -30, "days": 10}, "expired on"),
        ({"start": 2}, "not valid before"),
        ({"uri": "urn:somebody:else"}, "calls itself"),
        ({"hosts": ("plc.example",)}, "the url says 127.0.0.1"),
        ({"bits": 1024}, "1024 bits"),
        ({"usage": False}, "KeyUsage"),
        ({"purposes": (x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH,)}, "ExtendedKeyUsage"),
    ],
)
def test_a_trusted_certificate_is_still_refused_for(pki, made, reason):
    one, _ = certificate(**made)
    put(pki / "trusted" / "certs", "plc.der", one)
    with pytest.raises(Refused, match=reason):
        check(one, pki)


def test_the_host_check_can_be_left_to_the_trusted_file(pki):
    one, _ = certificate(hosts=("plc.example",))
    put(pki / "trusted" / "certs", "plc.der", one)
    assert check(one, pki, check_host=False)
    assert check(one, pki, host="PLC.example")


def test_an_empty_or_missing_trust_folder_trusts_nobody_and_other_files_are_named(pki):
    one, _ = certificate()
    with pytest.raises(Refused, match="is not trusted"):
        check(one, pki)
    (pki / "trusted" / "certs").mkdir(parents=True)
    (pki / "trusted" / "certs" / "plc.der").write_text("no certificate", encoding="utf-8")
    with pytest.raises(Refused, match=r"no certificate: .*plc\.der"):
        check(one, pki)


def test_names_of_trusted_files_do_not_matter_and_pem_is_as_good_as_der(pki):
    one, _ = certificate()
    (pki / "trusted" / "certs").mkdir(parents=True)
    (pki / "trusted" / "certs" / "plc.crt").write_bytes(one.public_bytes(serialization.Encoding.PEM))
    assert check(one, pki)


def test_a_certificate_of_a_trusted_authority_is_believed_and_one_of_an_untrusted_or_unknown_authority_is_not(pki):
    root = certificate(ca=True, name="root", purposes=())
    middle = certificate(ca=True, name="middle", issuer=root, purposes=())
    leaf, _ = certificate(issuer=middle)
    put(pki / "trusted" / "certs", "root.der", root[0])
    with pytest.raises(Refused, match="not trusted"):
        check(leaf, pki)
    put(pki / "issuers" / "certs", "middle.der", middle[0])
    assert check(leaf, pki)
    (pki / "trusted" / "certs" / "root.der").unlink()
    put(pki / "issuers" / "certs", "root.der", root[0])
    with pytest.raises(Refused, match="not trusted"):
        check(leaf, pki)


def test_a_certificate_that_only_names_a_trusted_issuer_is_not_believed(pki):
    root = certificate(ca=True, name="root", purposes=())
    forger = certificate(ca=True, name="root", purposes=())
    put(pki / "trusted" / "certs", "root.der", root[0])
    with pytest.raises(Refused, match="not trusted"):
        check(certificate(issuer=forger)[0], pki)


def test_a_trusted_certificate_that_is_no_authority_vouches_for_nobody(pki):
    plain = certificate(name="plain")
    put(pki / "trusted" / "certs", "plain.der", plain[0])
    with pytest.raises(Refused, match="not trusted"):
        check(certificate(issuer=plain)[0], pki)


def test_revocation_lists_are_obeyed(pki):
    root = certificate(ca=True, name="root", purposes=())
    good, _ = certificate(issuer=root)
    stolen, _ = certificate(issuer=root)
    put(pki / "trusted" / "certs", "root.der", root[0])
    with pytest.raises(Refused, match="no revocation list"):
        check(good, pki, require_crl=True)
    put(pki / "trusted" / "crl", "root.crl", revocations(root, [stolen]))
    assert check(good, pki, require_crl=True)
    with pytest.raises(Refused, match="revoked"):
        check(stolen, pki)
    put(pki / "trusted" / "crl", "root.crl", revocations(root, [stolen], next_update_days=-1))
    with pytest.raises(Refused, match="out of date"):
        check(good, pki)
    with pytest.raises(Refused, match="revoked"):
        check(stolen, pki)


def test_a_revocation_list_that_its_issuer_did_not_sign_counts_for_nothing(pki):
    root = certificate(ca=True, name="root", purposes=())
    forger = certificate(ca=True, name="root", purposes=())
    good, _ = certificate(issuer=root)
    put(pki / "trusted" / "certs", "root.der", root[0])
    put(pki / "trusted" / "crl", "forged.crl", revocations(forger, [good]))
    assert check(good, pki)
    with pytest.raises(Refused, match="no revocation list"):
        check(good, pki, require_crl=True)


def test_rejected_certificates_do_not_pile_up(pki):
    folder = pki / "rejected"
    folder.mkdir(parents=True)
    for n in range(REJECTED_MAX + 5):
        (folder / f"{n}.der").write_bytes(b"x")
    one, _ = certificate()
    with pytest.raises(Refused):
        check(one, pki)
    assert len(list(folder.iterdir())) == REJECTED_MAX
    assert (folder / f"{thumbprint(one)}.der").exists()
