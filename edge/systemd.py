"""What the gateway tells systemd about itself: the datagrams of sd_notify(3), without a library.

Every function is a no-op where NOTIFY_SOCKET is not set, that is outside a unit of Type=notify.
"""

import os
import socket

from edge import clock


def notify(*fields: str) -> bool:
    """Send `fields` ("READY=1", "STATUS=...") as one datagram; False if nobody listens.

    A name that starts with "@" is in Linux's abstract namespace. A manager that is gone is no reason to stop.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(fields).encode(), name)
    except OSError:
        return False
    return True


def ready(status: str) -> bool:
    """Start-up, or a reload, is finished."""
    return notify("READY=1", f"STATUS={_line(status)}")


def status(sentence: str) -> bool:
    """One line for `systemctl status`."""
    return notify(f"STATUS={_line(sentence)}")


def watchdog() -> bool:
    """Still alive: to be sent from the event loop only while every critical task does its work."""
    return notify("WATCHDOG=1")


def reloading() -> bool:
    """The configuration is being read again; `ready` must follow. MONOTONIC_USEC is CLOCK_MONOTONIC now."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={clock.now().monotonic // 1000}")


def stopping() -> bool:
    """Shutting down."""
    return notify("STOPPING=1")


def watchdog_period_s() -> float | None:
    """Return how often `watchdog` is due: a third of WATCHDOG_USEC; None if no watchdog waits for this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or usec == "0" or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 3e6


def _line(sentence: str) -> str:
    return " ".join(sentence.split())
