"""The open port: Twisted endpoint strings, all of them behind one TLS."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString, wrapServerTLS
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)

from node.errors import Failed
from node.hints import Place
from protocols.deferreds import starting


class OpenPort:
    """Listens on every endpoint of the settings.

    Owner: the node. Between `open` and `close` it holds the ports.

    Args:
        reactor: what the endpoint strings need of it depends on the endpoint.
        connections: the TLS of every inbound connection.
        site: makes the protocols above TLS.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        connections: IOpenSSLServerConnectionCreator,
        site: IProtocolFactory,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._connections = connections
        self._site = site
        self._ports: list[tuple[str, IListeningPort]] = []

    @starting
    async def open(self, endpoints: Sequence[str]) -> None:
        """Listen on all of them, or on none.

        Raises:
            Failed: one can't be listened on; says which and why.
        """
        try:
            for text in endpoints:
                self._ports.append((text, await self._listen(text)))
        except BaseException:
            await self.close()
            raise

    async def _listen(self, text: str) -> IListeningPort:
        try:
            endpoint = serverFromString(self._reactor, text)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise Failed(
                f"{text} is not a Twisted endpoint",
                str(error),
                "Mend listen: in node.yaml, such as tcp6:8443",
            ) from None
        secured = wrapServerTLS(self._connections, endpoint, self._clock)
        try:
            return await secured.listen(self._site)
        except (
            CannotListenError,
            OSError,
            OverflowError,
            LookupError,
            AttributeError,
        ) as error:
            reason = getattr(error, "socketError", None) or error
            raise Failed(
                f"cannot listen on {text}",
                str(getattr(reason, "strerror", None) or reason),
                "Change listen: in node.yaml, or stop what has the port",
            ) from None

    @property
    def listening(self) -> list[str]:
        """The endpoints with the ports that they got, as endpoint strings."""
        return [_spell(text, port) for text, port in self._ports]

    @property
    def places(self) -> list[Place]:
        """The TCP ports among them."""
        hosts = [port.getHost() for _, port in self._ports]
        return [
            Place(host.host, host.port)
            for host in hosts
            if isinstance(host, IPv4Address | IPv6Address)
        ]

    def close(self) -> Deferred[None]:
        """Stop listening; fires when all ports are closed."""
        ports, self._ports = self._ports, []
        stopping = [port.stopListening() for _, port in ports]
        waiting = [each for each in stopping if isinstance(each, Deferred)]
        return gatherResults(waiting, consumeErrors=True).addCallback(lambda _: None)


def _spell(text: str, port: IListeningPort) -> str:
    host = port.getHost()
    if not isinstance(host, IPv4Address | IPv6Address):
        return text
    kind = "tcp6" if isinstance(host, IPv6Address) else "tcp"
    if host.host in ("::", "0.0.0.0"):  # noqa: S104 - compared, not bound
        return f"{kind}:{host.port}"
    escaped = host.host.replace(":", "\\:")
    return f"{kind}:{host.port}:interface={escaped}"
