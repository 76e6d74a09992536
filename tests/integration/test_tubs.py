"""Tests of outbound Tubs between two running nodes: where their keys are, how new."""

import base64
import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet import reactor  # noqa: TID251 - over real sockets
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.trial.unittest import TestCase

from node import issuer, service
from node.embedded import RunningNode, running_node
from node.errors import WherryError
from protocols import tls, tub
from protocols.certificates import Key, key_pem
from protocols.nodeid import NodeID, spki
from protocols.principal import Principal
from protocols.tub import Tub
from tests.kit import today

PRIVATE = (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)


def spellings(key: Key) -> set[bytes]:
    """How a private key could be written down; white space left out."""
    number = key.private_numbers().private_value
    raw = number.to_bytes(32, "big")
    ders = [key.private_bytes(Encoding.DER, each, NoEncryption()) for each in PRIVATE]
    found = {raw, raw[::-1], str(number).encode("ascii"), *ders}
    for each in (raw, raw[::-1]):
        found |= {each.hex().encode("ascii"), each.hex().upper().encode("ascii")}
    for each in (raw, *ders):
        found |= {
            base64.b64encode(each).rstrip(b"="),
            base64.urlsafe_b64encode(each).rstrip(b"="),
        }
    return found


def readable(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything below a folder, and every file that this process has open."""
    open_files = Path("/proc/self/fd")
    for path in (*folder.rglob("*"), *open_files.iterdir()):
        # A descriptor of the walk itself may be gone by now.
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISREG(path.stat().st_mode):
                yield str(path), path.read_bytes()


def traces(key: Key, folder: Path) -> set[str]:
    """Where a key is written down."""
    wanted = spellings(key)
    found = set()
    for name, data in readable(folder):
        squeezed = b"".join(data.split())
        if any(each in data or each in squeezed for each in wanted):
            found.add(name)
    return found


class TubTests(TestCase):
    """Two devices in this process, connected over loopback both ways."""

    timeout = 60

    def setUp(self) -> None:
        """Have every Tub that is minted, and every caller's certificate, noted."""
        self.tubs: list[Tub] = []
        self.callers: list[tuple[Principal, x509.Certificate]] = []
        self.next_call: Deferred[None] | None = None
        mint, principal_of = tub.mint, tls.principal_of

        def minting(*arguments: object) -> Tub:
            minted = mint(*arguments)  # type: ignore[arg-type]  # passed on
            self.tubs.append(minted)
            return minted

        def naming(transport: ITransport) -> Principal:
            caller = principal_of(transport)
            shown = transport.getPeerCertificate()  # type: ignore[attr-defined]
            self.callers.append((caller, shown.to_cryptography()))
            if self.next_call is not None:
                called, self.next_call = self.next_call, None
                called.callback(None)
            return caller

        self.patch(issuer, "mint", minting)
        self.patch(service, "principal_of", naming)

    async def two(self, stack: AsyncExitStack) -> tuple[RunningNode, RunningNode]:
        """Run two nodes that are connected both ways."""
        desk = await stack.enter_async_context(running_node(reactor, nickname="desk"))
        laptop = await stack.enter_async_context(
            running_node(reactor, nickname="laptop", sister_of=desk)
        )
        await laptop.ping("desk")
        await desk.ping("laptop")
        return desk, laptop

    async def test_keys_stay_in_memory(self) -> None:
        """No outbound key is in a node directory or in a file that is open."""
        async with AsyncExitStack() as stack:
            desk, laptop = await self.two(stack)
            source = Path(self.mktemp())
            source.write_bytes(os.urandom(100_000))
            await desk.share(source)
            await laptop.get(source.name, to=self.folder())
            shown = {key_of(leaf) for _, leaf in self.callers}
            minted = {key_of(each.chain[0]) for each in self.tubs}
            self.assertGreaterEqual(len(shown), 2)
            self.assertLessEqual(shown, minted)
            for each in (desk, laptop):
                folder = each.directory.path
                for minted_here in self.tubs:
                    self.assertEqual(traces(minted_here.key, folder), set())
                # The controls: the key that persists is found, and so would be
                # one of these, however it is written.
                server = each.service.identity.server_key
                self.assertEqual(
                    traces(server, folder), {str(folder / "private" / "server.key")}
                )

    async def test_walk_control(self) -> None:
        """The walk finds a key in the directory, and in an open file without a name."""
        async with running_node(reactor) as desk:
            folder = desk.directory.path
            key = tub.mint(None, None, today()).key
            self.assertEqual(traces(key, folder), set())
            for number, spelling in enumerate((*spellings(key), key_pem(key))):
                path = folder / "private" / str(number)
                path.write_bytes(b"x" + spelling + b"y")
                self.assertEqual(traces(key, folder), {str(path)})
                with path.open("rb") as opened:
                    path.unlink()
                    found = traces(key, folder)
                    self.assertEqual(found, {f"/proc/self/fd/{opened.fileno()}"})

    async def test_new_at_each_reconnect(self) -> None:
        """Each reconnect shows a certificate that has nothing of those before."""
        async with AsyncExitStack() as stack:
            desk, laptop = await self.two(stack)
            desk.service.broker.update([])  # the calls one way are enough
            generations: list[set[x509.Certificate]] = []
            labels = []
            for _ in range(5):
                self.callers.clear()
                self.next_call = called = Deferred[None]()
                self.assertGreater(desk.service.site.cut(lambda _: True), 0)
                while not called.called:
                    # Until it has noticed; then it dials without waiting.
                    with contextlib.suppress(WherryError):
                        await laptop.ping("desk")
                labels.append((await laptop.ping("desk"))["identity"])
                generations.append({leaf for _, leaf in self.callers})
            leaves = [leaf for each in generations for leaf in each]
            self.assertEqual([len(each) for each in generations], [1] * 5)
            self.assertEqual(len(set(labels)), 5)
            keys = {key_of(leaf) for leaf in leaves}
            self.assertEqual(len(keys), 5)
            self.assertEqual(keys & {desk.id, laptop.id}, set())
            self.assertEqual(len({leaf.serial_number for leaf in leaves}), 5)
            # All else is the same in all of them.
            self.assertEqual(len({template(leaf) for leaf in leaves}), 1)

    def folder(self) -> Path:
        """A new folder to fetch into."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        return folder


def key_of(certificate: x509.Certificate) -> NodeID:
    """Name the key of a certificate as if it were a node's."""
    return NodeID.of_spki(spki(certificate.public_key()))


def template(leaf: x509.Certificate) -> tuple[object, ...]:
    """What of a certificate is not its key, its number or its signature."""
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    midnights = [each.time().isoformat() for each in (start, end)]
    kinds = [(each.oid, each.critical) for each in leaf.extensions]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return (
        leaf.subject,
        leaf.issuer,
        tuple(midnights),
        end - start,
        tuple(kinds),
        names.value,
    )
