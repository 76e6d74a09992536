"""Noticing within 30 s that the other end of a TCP connection is gone."""

import socket

from twisted.protocols.policies import ProtocolWrapper

# An idle link is given up after 10 + 3 * 5 s, one with data on its way after
# 25 s. The second also ends the connection of a caller who takes nothing for
# that long, although the caller's system still answers.
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),
)


def bottom(transport: object) -> object:
    """Give the transport at the bottom of TLS and other wrappers."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def keep_alive(transport: object) -> None:
    """Have the system probe a connection, where it is TCP at the bottom.

    Args:
        transport: of any kind; one that isn't TCP is left as it is.
    """
    handle = getattr(bottom(transport), "getHandle", lambda: None)()
    if isinstance(handle, socket.socket) and handle.family != socket.AF_UNIX:
        for level, option, value in _OPTIONS:
            handle.setsockopt(level, option, value)
