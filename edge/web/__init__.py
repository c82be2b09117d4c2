"""The local page, metrics, health and the control socket.

Light on purpose: the configuration and the command line import this package; what serves (`edge.web.server`) is
imported by whoever serves.
"""

from edge.web.options import WebOptions

__all__ = ["WebOptions"]
