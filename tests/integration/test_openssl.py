"""Tests with ``openssl s_client``: what a stranger with a tool can see."""

from cryptography import x509

from tests.integration.machines import NAME, Leaf, MachineTests, Said

NO_CERTIFICATE = "no peer certificate available"
PEM = "-----BEGIN CERTIFICATE-----"
ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class OpensslTests(MachineTests):
    """One node, called by s_client."""

    def setUp(self) -> None:
        """Start the node."""
        super().setUp()
        self.desk = self.machine("desk")
        self.desk.start()

    def s_client(self, *arguments: str, leaf: Leaf | None = None) -> Said:
        """Call it, ask for ``/``, and wait for the end."""
        place = f"127.0.0.1:{self.desk.port}"
        ours: tuple[str, ...] = ()
        if leaf is not None:
            ours = (
                *("-cert", str(leaf.chain), "-cert_chain", str(leaf.chain)),
                *("-key", str(leaf.key), "-CAfile", str(leaf.user_ca)),
            )
        command = ("openssl", "s_client", "-connect", place, "-ign_eof", *ours)
        return self.run_program(*command, *arguments, input=ASK)

    def test_protocol(self) -> None:
        """TLS 1.3, with http/1.1 even for who would rather have h2."""
        said = self.s_client(
            *("-servername", NAME, "-alpn", "h2,http/1.1", "-verify_return_error"),
            leaf=self.desk.leaf(),
        )
        self.assertIn("New, TLSv1.3, Cipher is", said.out)
        self.assertIn("ALPN protocol: http/1.1", said.out)
        self.assertIn("HTTP/1.1 200 OK", said.out)
        shown = x509.load_pem_x509_certificate(said.out[said.out.index(PEM) :].encode())
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(names.value, x509.SubjectAlternativeName([x509.DNSName(NAME)]))

    def test_no_h2(self) -> None:
        """Who offers h2 alone gets an alert."""
        said = self.s_client("-servername", NAME, "-alpn", "h2", leaf=self.desk.leaf())
        self.assertIn("alert no application protocol", said.err)
        self.assertNotIn("HTTP/1.1", said.out)

    def test_no_resumption(self) -> None:
        """A session that was kept leads to a full handshake."""
        leaf, kept = self.desk.leaf(), self.desk.root / "session"
        named = ("-servername", NAME)
        first = self.s_client(*named, "-sess_out", str(kept), leaf=leaf)
        self.assertIn("New, TLSv1.3", first.out)
        self.assertGreater(kept.stat().st_size, 0)
        again = self.s_client(*named, "-sess_in", str(kept), leaf=leaf)
        self.assertIn("New, TLSv1.3", again.out)
        self.assertNotIn("Reused", again.out)
        self.assertIn("HTTP/1.1 200 OK", again.out)
        # Without a certificate a kept session opens nothing either.
        bare = self.s_client(*named, "-sess_in", str(kept))
        self.assertNotIn("HTTP/1.1", bare.out)

    def assert_mute(self, said: Said) -> None:
        """An alert, no certificate, and not a byte more."""
        self.assertIn(NO_CERTIFICATE, said.out)
        self.assertIn("alert", said.err)
        self.assertNotIn(PEM, said.out)
        self.assertNotIn("HTTP/1.1", said.out)
        self.assertNotIn(self.desk.node.text, said.out)

    def test_wrong_names(self) -> None:
        """A wrong server name or none shows no certificate, even to an own device."""
        leaf = self.desk.leaf()
        own = self.desk.one_use_name()
        wrong = (
            "localhost",
            f"x.{NAME}",
            f"{self.desk.node}.wherry.internal",
            "wherry.internal",
            f"{'a' * 39}.wherry.internal",
            own.replace(".wherry.internal", ".example"),
            own.upper(),
        )
        for name in wrong:
            self.assert_mute(self.s_client("-servername", name, leaf=leaf))
        self.assert_mute(self.s_client("-noservername", leaf=leaf))

    def test_used_names(self) -> None:
        """A one-use name shows the certificate once, and after a restart no more."""
        leaf = self.desk.leaf()
        own, others = self.desk.one_use_name("own"), self.desk.one_use_name("others")
        first = self.s_client("-servername", own, leaf=leaf)
        self.assertIn("HTTP/1.1 200 OK", first.out)
        # A name for others shows the self-signed certificate, and lets none in here.
        other = self.s_client("-servername", others)
        self.assertIn(PEM, other.out)
        self.assertNotIn("HTTP/1.1", other.out)
        for name in (own, others):
            self.assert_mute(self.s_client("-servername", name, leaf=leaf))
        self.desk.stop()
        self.desk.start()
        for name in (own, others):
            self.assert_mute(self.s_client("-servername", name, leaf=leaf))

    def test_faces(self) -> None:
        """Who is no own device never sees the user CA or the device CA."""
        shown = {
            kind: self.s_client("-showcerts", "-servername", name).out
            for kind, name in (
                ("own", self.desk.one_use_name("own")),
                ("others", self.desk.one_use_name("others")),
            )
        }
        counts = {kind: out.count(PEM) for kind, out in shown.items()}
        self.assertEqual(counts, {"own": 2, "others": 1})

    def test_no_older_tls(self) -> None:
        """TLS 1.2 is refused."""
        said = self.s_client("-tls1_2", "-servername", NAME, leaf=self.desk.leaf())
        self.assert_mute(said)
        self.assertIn("alert protocol version", said.err)
