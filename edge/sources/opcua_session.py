"""One session with one OPC UA server: socket, secure channel, identity, and one way to ask for something.

Owns the order of the handshake (who the server is, is checked before we identify ourselves), the renewal of the
channel, the limits of messages and the translation of asyncua's errors into ours. Leaves subscriptions and reads to
their modules; asyncua encodes the requests and does the cryptography.
"""

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import InvalidSignature
from asyncua.ua import UaError, UaStatusCodeError
from asyncua.ua.ua_binary import struct_from_binary
from cryptography.exceptions import InvalidSignature as CryptographyInvalidSignature

from edge.errors import AndonError, Disconnected, Refused, Unreachable
from edge.sources.opcua_frames import CHUNK_SIZE_MAX, CHUNKS_MAX, MESSAGE_SIZE_MAX, Frames
from edge.sources.opcua_intake import explain
from edge.sources.opcua_options import OpcuaOptions
from edge.sources.opcua_security import Identity, application_identity, check_server, read_identity, thumbprint

CHANNEL_LIFETIME_MS: Final = 3_600_000
CHANNEL_RENEWAL: Final = 0.75
"""Part of the channel's lifetime after which it is renewed (OPC 10000-4, 5.6.2)."""

CLOSE_S_MAX: Final = 2.0

LIBRARY_ERRORS: Final = (
    OSError, TimeoutError, UaError, InvalidSignature, CryptographyInvalidSignature, struct.error, ValueError, TypeError,
    AttributeError, LookupError,
)  # fmt: skip
"""What asyncua raises when a peer is away, says no or answers with something that is no OPC UA."""

_POLICIES: Final = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_URI: Final = "http://opcfoundation.org/UA/SecurityPolicy#"


def codes(*names: str) -> frozenset[int]:
    """Return the numbers of status codes."""
    return frozenset(int(getattr(ua.StatusCodes, name)) for name in names)


_WRONG_USER: Final = codes(
    "BadIdentityTokenInvalid", "BadIdentityTokenRejected", "BadUserAccessDenied", "BadUserSignatureInvalid"
)
_WRONG_CERTIFICATE: Final = codes(
    "BadSecurityChecksFailed", "BadCertificateInvalid", "BadCertificateUntrusted", "BadCertificateTimeInvalid",
    "BadCertificateUriInvalid", "BadCertificateUseNotAllowed", "BadCertificateRevoked", "BadCertificateChainIncomplete",
    "BadCertificateHostNameInvalid", "BadCertificatePolicyCheckFailed", "BadApplicationSignatureInvalid",
)  # fmt: skip
_REFUSED: Final = codes("BadSecurityPolicyRejected", "BadSecurityModeRejected", "BadSecurityModeInsufficient")


TOO_MUCH: Final = codes(
    "BadTooManyOperations", "BadResponseTooLarge", "BadRequestTooLarge", "BadEncodingLimitsExceeded",
    "BadTooManyMonitoredItems",
)  # fmt: skip
"""Statuses of a whole call after which fewer nodes are asked for at once."""


@dataclass(frozen=True, slots=True)
class _Credentials:
    """What is read from files before a connection is opened."""

    application: Identity | None
    user: Identity | None
    password: str | None


def _credentials(options: OpcuaOptions) -> _Credentials:
    """Read certificates and password. Raises Refused naming the file."""
    application = user = password = None
    if options.security_policy != "None":
        application = application_identity(options.certificate, options.private_key, options.pki_dir)
    if options.user_certificate is not None and options.user_private_key is not None:
        user = read_identity(options.user_certificate, options.user_private_key, "user certificate")
    if options.password_file is not None:
        try:
            password = options.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"cannot read password_file {options.password_file}: {error}") from error
    return _Credentials(application, user, password)


class Session:
    """An open session. Made by `open_session`; `close` lets go of it and never raises.

    offers: policies and modes of the server's endpoints. server_certificate: DER, pinned; own_certificate:
    DER; both empty without security.
    """

    def __init__(self, client: Any, options: OpcuaOptions) -> None:
        self.client = client
        self.options = options
        self.where = f"device {options.name} ({options.url})"
        self.offers: set[tuple[str, str]] = set()
        self.server_certificate: bytes = b""
        self.own_certificate: bytes = b""
        self._renewal: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        protocol = self.client.uaclient.protocol
        return protocol is not None and not protocol.is_closed

    async def send(self, request: Any, *, timeout_s: float | None = None) -> bytes:
        """Send a request and return the body of the answer. timeout_s: None = the device's deadline, 0 = none.

        Raises UaStatusCodeError if the service as a whole failed, Disconnected if there is no answer.
        """
        protocol = self.client.uaclient.protocol
        if protocol is None:
            raise Disconnected(f"{self.where}: the connection is closed")
        try:
            answer = await protocol.send_request(request, timeout_s)
        except UaStatusCodeError:
            raise
        except TimeoutError as error:
            name = type(request).__name__
            raise Disconnected(f"{self.where} did not answer {name} within {self.options.deadline_ms} ms") from error
        except (OSError, UaError) as error:
            raise Disconnected(f"{self.where}: the connection was lost: {error or type(error).__name__}") from error
        return answer.read(len(answer))  # type: ignore[no-any-return]

    async def call(self, request: Any, response: type) -> Any:
        """Send a request and decode the answer. Raises UaStatusCodeError or Disconnected."""
        body = await self.send(request)
        try:
            answer = struct_from_binary(response, ua.utils.Buffer(body))
        except LIBRARY_ERRORS as error:
            raise Disconnected(f"{self.where} answered {type(request).__name__} with something unreadable") from error
        answer.ResponseHeader.ServiceResult.check()
        return answer

    async def read_values(self, nodes: Sequence[ua.NodeId]) -> list[Any]:
        """Read values of a few nodes; None where a node has none. Raises UaStatusCodeError or Disconnected."""
        request = ua.ReadRequest()
        request.Parameters.NodesToRead = [ua.ReadValueId(node, ua.AttributeIds.Value) for node in nodes]
        results = (await self.call(request, ua.ReadResponse)).Results
        return [
            one.Value.Value if one.Value is not None and not (one.StatusCode and one.StatusCode.is_bad()) else None
            for one in results
        ]

    async def read_namespaces(self) -> list[str]:
        """Read the namespace array. Raises UaStatusCodeError or Disconnected."""
        (uris,) = await self.read_values([ua.NodeId(ua.ObjectIds.Server_NamespaceArray)])
        return [str(uri) for uri in uris or ()]

    def start_renewal(self) -> None:
        self._renewal = asyncio.create_task(self._renew(), name=f"opcua-channel-{self.options.name}")

    async def _renew(self) -> None:
        """Renew the secure channel in time; if that fails, hang up: whoever waits for an answer gets Disconnected."""
        try:
            while True:
                await asyncio.sleep(self.client.secure_channel_timeout * CHANNEL_RENEWAL / 1000)
                await self.renew()
        except LIBRARY_ERRORS:
            self._abort()

    async def renew(self) -> None:
        """Take a new security token for the channel, and use it at once."""
        await self.client.open_secure_channel(renew=True)
        self.client.uaclient.revolve_security_token()

    async def reopen(self) -> None:
        """Open a new session on the same channel; the old one and its subscriptions are gone.

        Raises UaStatusCodeError, Disconnected or Refused.
        """
        request = ua.CloseSessionRequest()
        request.DeleteSubscriptions = True
        with contextlib.suppress(UaStatusCodeError):  # the server may have dropped it, that is why we are here
            await self.send(request)
        try:
            credentials = await asyncio.to_thread(_credentials, self.options)
            await _identify(self, credentials)
        except UaStatusCodeError:
            raise
        except LIBRARY_ERRORS as error:
            raise Disconnected(f"{self.where} opens no new session: {error or type(error).__name__}") from error

    def _abort(self) -> None:
        protocol = self.client.uaclient.protocol
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()

    async def close(self) -> None:
        """Delete the session with its subscriptions and hang up, within CLOSE_S_MAX even if nobody answers."""
        if self._renewal is not None:
            self._renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewal
            self._renewal = None
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                if self.is_open:
                    await self.client.close_session()
                    await self.client.close_secure_channel()
        except LIBRARY_ERRORS:
            pass  # the peer is gone or hangs; its session runs out by itself within session_timeout_s
        finally:
            self._abort()
            self.client.disconnect_socket()
            await asyncio.sleep(0)  # lets the aborted transport close its socket


def _fault(error: BaseException, options: OpcuaOptions, credentials: _Credentials) -> AndonError:
    """Translate an error of the handshake into what the caller must do."""
    where = f"device {options.name} ({options.url})"
    code = error.code if isinstance(error, UaStatusCodeError) else None
    if code in _WRONG_USER:
        who = f"user {options.user!r}" if options.user else "an anonymous user"
        who = "the user certificate" if credentials.user is not None else who
        return Refused(
            f"{where} refuses {who} ({explain(int(code or 0))}); check user and password_file in gateway.toml"
        )
    if code in _WRONG_CERTIFICATE:
        own = credentials.application
        which = f"our certificate {own.path}, thumbprint {thumbprint(own.certificate)}" if own else "our certificate"
        return Refused(f"{where} refuses {which} ({explain(int(code or 0))}); trust it on the server")
    if code in _REFUSED:
        return Refused(
            f"{where} refuses {options.security_policy}, {options.security_mode} ({explain(int(code or 0))})"
        )
    if code is not None:
        return Unreachable(f"{where} does not open a session: {explain(code)}")
    if isinstance(error, (InvalidSignature, CryptographyInvalidSignature)):
        return Refused(f"{where} cannot prove that its certificate is its own: the signature of its answer is wrong")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{where} does not answer within {options.deadline_ms} ms")
    if isinstance(error, OSError):
        return Unreachable(f"{where} cannot be reached: {error.strerror or error}")
    return Unreachable(f"{where} does not speak OPC UA as expected: {error or type(error).__name__}")


async def open_session(options: OpcuaOptions) -> Session:
    """Connect, check who answers, identify ourselves. Raises Unreachable or Refused."""
    try:
        credentials = await asyncio.to_thread(_credentials, options)
    except Refused as error:
        raise Refused(f"device {options.name} ({options.url}): {error}") from error
    client = _client(options, credentials)
    session = Session(client, options)
    try:
        await _handshake(session, credentials)
    except LIBRARY_ERRORS as error:
        await session.close()
        raise _fault(error, options, credentials) from error
    except BaseException:
        await session.close()
        raise
    session.start_renewal()
    return session


def _client(options: OpcuaOptions, credentials: _Credentials) -> Any:
    url = urlsplit(options.url)
    address = options.url if url.port else options.url.replace(url.netloc, f"{url.netloc}:4840", 1)
    client = Client(address, timeout=options.deadline_ms / 1000)
    client.name = "Andon"
    client.description = f"Andon {options.name}"
    client.application_uri = credentials.application.uri if credentials.application else "urn:andon:gateway"
    client.product_uri = "urn:andon"
    client.session_timeout = options.session_timeout_s * 1000
    client.secure_channel_timeout = CHANNEL_LIFETIME_MS
    client.max_messagesize = MESSAGE_SIZE_MAX
    client.max_chunkcount = CHUNKS_MAX
    if credentials.user is not None:
        client.user_certificate = credentials.user.certificate
        client.user_private_key = credentials.user.key
    return client


async def _open_channel(client: Any) -> None:
    await client.connect_socket()
    protocol = client.uaclient.protocol
    protocol.transport.set_protocol(Frames(protocol))
    await client.send_hello()
    # asyncua takes what the server can receive for what it may send, and the other way round: a server with a small
    # receive buffer would be sent too much and then be cut off for its own, larger chunks. `Frames` bounds what comes.
    limits = protocol._connection._limits  # noqa: SLF001 - there is no public way
    limits.max_send_buffer = min(limits.max_recv_buffer, CHUNK_SIZE_MAX)
    limits.max_recv_buffer = CHUNK_SIZE_MAX
    limits.max_message_size = 0
    limits.max_chunk_count = 0
    await client.open_secure_channel()


def _offers(endpoints: Sequence[Any]) -> set[tuple[str, str]]:
    """Return policy and mode of the endpoints over OPC UA TCP."""
    return {
        ((one.SecurityPolicyUri or "").removeprefix(_URI), one.SecurityMode.name.rstrip("_"))
        for one in endpoints
        if (one.EndpointUrl or "").startswith("opc.tcp")
    }


def _endpoint(endpoints: Sequence[Any], options: OpcuaOptions) -> Any:
    wanted = (options.security_policy, options.security_mode)
    for one in endpoints:
        if wanted in _offers([one]):
            return one
    offers = "; ".join(f"{policy}, {mode}" for policy, mode in sorted(_offers(endpoints))) or "nothing"
    raise Refused(
        f"device {options.name} ({options.url}) does not offer {wanted[0]}, {wanted[1]}; it offers {offers}: "
        "set security_policy and security_mode to one of these"
    )


async def _handshake(session: Session, credentials: _Credentials) -> None:
    """Find the endpoint, check its certificate, open the channel with that certificate pinned, open the session."""
    client, options = session.client, session.options
    await _open_channel(client)
    endpoints = await client.get_endpoints()
    endpoint = _endpoint(endpoints, options)
    session.offers = _offers(endpoints)
    own = credentials.application
    if own is not None:
        await client.close_secure_channel()
        protocol = client.uaclient.protocol
        client.disconnect_socket()
        if protocol.transport is not None:
            protocol.transport.abort()
        session.own_certificate = own.der
        session.server_certificate = await asyncio.to_thread(_checked_server, endpoint, options)
        await client.set_security(
            _POLICIES[options.security_policy],
            own.der,
            own.key_der,
            server_certificate=session.server_certificate,
            mode=getattr(ua.MessageSecurityMode, options.security_mode),
        )
        await _open_channel(client)
    await _identify(session, credentials)


async def _identify(session: Session, credentials: _Credentials) -> None:
    """Create a session on the channel and say who we are."""
    client, options = session.client, session.options
    created = await client.create_session()
    if credentials.application is not None and _offers(created.ServerEndpoints) != session.offers:
        raise Refused(
            f"device {options.name} ({options.url}) names other endpoints inside the secure channel than outside: "
            "somebody between us may try to weaken the security"
        )
    user = credentials.user
    await client.activate_session(
        username=options.user or None, password=credentials.password, certificate=user.certificate if user else None
    )


def _checked_server(endpoint: Any, options: OpcuaOptions) -> bytes:
    """Return the DER of the endpoint's certificate if it may be trusted. Raises Refused."""
    where = f"device {options.name} ({options.url})"
    der = endpoint.ServerCertificate
    if not der:
        raise Refused(f"{where} presents no certificate")
    uri = options.server_uri or endpoint.Server.ApplicationUri or ""
    try:
        check_server(
            der,
            options.pki_dir,
            urlsplit(options.url).hostname or "",
            uri,
            check_host=options.check_host,
            require_crl=options.require_crl,
        )
    except Refused as error:
        raise Refused(f"{where}: {error}") from error
    return bytes(der[: int.from_bytes(der[2:4], "big") + 4])
