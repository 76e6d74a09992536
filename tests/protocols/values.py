"""Hypothesis strategies for the values of this package."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import assume
from hypothesis import strategies as st

from protocols import base32
from protocols.errors import Malformed
from protocols.hint import Hint, tcp
from protocols.nodeid import NodeID

node_ids = st.binary(min_size=32, max_size=32).map(
    lambda digest: NodeID(base32.encode(digest))
)
ports = st.integers(1, 65535)
labels = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
host_names = st.lists(labels, min_size=1, max_size=4).map(".".join)
interfaces = st.one_of(
    st.just("*"), st.from_regex(r"[a-z]{2,6}[0-9]{1,3}", fullmatch=True)
)
readable_names = st.text(
    st.characters(categories=("L", "N", "P", "S", "Zs"), max_codepoint=0x2FFF),
    min_size=1,
    max_size=64,
).filter(lambda name: name.isprintable() and name == name.strip())


@st.composite
def _tcp_hints(draw: st.DrawFn) -> Hint:
    host = draw(
        st.one_of(
            host_names,
            st.integers(0, 2**32 - 1).map(lambda n: str(IPv4Address(n))),
            st.integers(0, 2**128 - 1).map(lambda n: str(IPv6Address(n))),
            st.integers(0, 2**64 - 1).map(
                lambda n: str(IPv6Address((0xFE80 << 112) + n))
            ),
        )
    )
    scope = draw(interfaces) if host.startswith("fe80:") else None
    try:
        return tcp(host, draw(ports), scope)
    except Malformed:  # an address that nobody can call
        assume(False)
        raise


hints = st.one_of(
    _tcp_hints(),
    st.builds(lambda name, port: Hint.parse(f"tor:{name}.onion:{port}"), labels, ports),
    node_ids.map(lambda node: Hint.parse(f"via:{node}")),
    st.from_regex(r"quic:[!-~]{1,30}", fullmatch=True)
    .filter(lambda text: not set(text) & set(",?&#"))
    .map(Hint.parse),
)
