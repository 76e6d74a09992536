"""Identities to call with: a fresh outbound Tub for every connection generation."""

import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from broker.errors import NoTub
from broker.generation import Credentials, Issuer
from broker.merge import PeerRecord
from node.identity import Identity
from protocols import callname
from protocols.certificates import key_id
from protocols.tls import CallerConnections
from protocols.tub import mint


def device_issuer(identity: Callable[[], Identity], clock: IReactorTime) -> Issuer:
    """Make the issuer of Tubs with which this device calls its sisters.

    The key of a Tub is in the memory of its generation and nowhere else.

    Args:
        identity: gives what certifies them; asked for each, since it is renewed.
        clock: says which day it is.
    """

    def issue(peer: PeerRecord) -> Credentials:
        if not peer.own:
            raise NoTub(
                "it is not one of your own devices, and others can't be called yet"
            )
        own = identity()
        secret = callname.own_secret(peer.node, key_id(own.user_ca))
        tub = mint(own.device_ca, own.device_key, clock.seconds())

        def name() -> str:
            return callname.make(secret, clock.seconds(), os.urandom(8))

        connections = CallerConnections(tub, peer.node, name, own.user_ca)
        return Credentials(connections, tub.label)

    return issue
