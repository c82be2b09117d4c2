"""paho's client, with what a link needs of it besides."""

import socket
import ssl
from typing import Any

from paho.mqtt.client import Client


class TidyClient(Client):
    """paho's client, but a socket whose TLS handshake failed is closed and not left to the garbage collector."""

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
