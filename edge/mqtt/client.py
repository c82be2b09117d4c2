"""paho's client, with what a link needs of it besides."""

import socket
import ssl
from typing import Any, Final

from paho.mqtt.client import Client

RECEIVE_SIZE: Final = 65_536
SAYS_NO: Final = {
    "Bad user name or password", "Not authorized", "Client identifier not valid", "Banned", "Bad authentication method",
    "Session taken over", "Topic name invalid", "Administrative action",
}  # fmt: skip
"""Reasons after which asking again soon is of no use."""


class TidyClient(Client):
    """paho's client, with two differences.

    It reads ahead: paho asks the socket for every packet three times, for one byte, one byte and the rest.
    A socket whose TLS handshake failed is closed and not left to the garbage collector.
    """

    _ahead = b""
    _taken = 0

    @property
    def has_more(self) -> bool:
        """Whether something was received that paho has not read yet: no selector tells."""
        return self._taken < len(self._ahead) or pending(self._sock) > 0

    def _sock_recv(self, bufsize: int) -> bytes:
        first = self._taken
        if first == len(self._ahead):
            self._ahead = super()._sock_recv(RECEIVE_SIZE)
            first = 0
        self._taken = min(first + bufsize, len(self._ahead))
        return self._ahead[first : self._taken]

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        context = self._ssl_context
        assert context is not None
        tcp_sock.settimeout(self.connect_timeout)
        wrapped = context.wrap_socket(tcp_sock, server_hostname=self.host, do_handshake_on_connect=False)
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


def leave_writing_to_us(_client: Client, _data: Any, _sock: Any) -> None:
    """Do nothing: with this callback paho does not write by itself."""


def pending(sock: Any) -> int:
    """Return how many bytes a TLS socket holds that no selector sees."""
    return sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
