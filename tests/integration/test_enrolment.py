"""Tests of devices that become one user's, and of one that doesn't."""

import json

from node.directory import NodeDirectory
from node.peersfile import Kind, KnownPeer, Peers, save_peers
from protocols.card import Card
from tests.integration.machines import Machine, MachineTests
from tests.kit import today


class EnrolmentTests(MachineTests):
    """By the commands alone."""

    def init(self, nickname: str) -> Machine:
        """Make a node as a user does."""
        machine = self.bare(nickname)
        listen = f"tcp:{machine.port}:interface=127.0.0.1"
        arguments = ("--nickname", nickname, "--listen", listen, "--json")
        made = json.loads(machine.wherry("init", *arguments).out)
        self.assertEqual((made["schema"], made["created"]), (1, True))
        self.assertEqual(Card.parse(made["card"]).node.text, made["node"])
        return machine

    def admit(self, holder: Machine, new: Machine) -> None:
        """Carry the two small files, and compare the words."""
        request, bundle = self.root / "request.txt", self.root / "bundle.txt"
        asked = new.wherry("device", "request")
        request.write_text(asked.out)
        # Nobody is there to say yes, so nothing is done without --yes.
        holder.wherry("device", "admit", str(request), code=2)
        admitted = holder.wherry("device", "admit", "--yes", str(request))
        bundle.write_text(admitted.out)
        accepted = new.wherry("device", "accept", "--yes", str(bundle))
        for said, there in ((asked, "request"), (accepted, "user CA")):
            (words,) = (
                line
                for line in said.err.splitlines()
                if line.startswith(f"Words of the {there}: ")
            )
            self.assertEqual(len(words.partition(": ")[2].split()), 3)
            self.assertIn(words, admitted.err)

    def test_three_devices(self) -> None:
        """A second and a third device; each then reaches each, both ways."""
        desk, laptop, nas = (self.init(name) for name in ("desk", "laptop", "nas"))
        self.admit(desk, laptop)
        desk.start()
        laptop.start()
        # The third one is admitted while the first one's node runs.
        self.admit(desk, nas)
        nas.start()
        for here in (desk, nas):
            for there in (desk, laptop, nas):
                if here is not there:
                    reply = json.loads(
                        here.wherry("ping", there.nickname, "--json").out
                    )
                    self.assertEqual(reply["node"], there.node.text)
                    self.assertEqual(reply["nickname"], there.nickname)
                    self.assertEqual(reply["route"]["kind"], "loopback")
        self.assertEqual(laptop.ping("desk")["node"], desk.node.text)

    def test_stranger(self) -> None:
        """Another user's node that has our card is refused, and told so in a line."""
        desk, stranger = self.machine("desk"), self.machine("stranger")
        desk.start()
        card = Card.parse(desk.wherry("card").out.strip())
        directory = NodeDirectory(stranger.directory)
        codes: dict[Kind, int] = {"device": 5, "person": 4}
        for kind, code in codes.items():
            with directory.lock():
                known = KnownPeer("desk", kind, card, int(today()))
                save_peers(directory, Peers((known,)))
            stranger.start()
            said = stranger.wherry("ping", "desk", "--timeout", "5", code=code)
            self.assertEqual(said.out, "")
            self.assertEqual(len(said.err.splitlines()), 1)
            self.assertRegex(said.err, r"^wherry: .*desk")
            stranger.stop()
        status = json.loads(desk.wherry("status", "--json").out)
        self.assertEqual(status["peers"], [])
