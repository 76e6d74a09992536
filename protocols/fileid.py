"""File ids and leaf hashes: content that proves itself, whoever sends it."""

from functools import lru_cache
from typing import ClassVar

from attrs import field, frozen
from blake3 import blake3

from protocols import base32
from protocols.base32 import DigestID
from protocols.errors import Malformed, ProtocolError

LEAF_SIZE = 1 << 20
HASH_SIZE = 32

# Two tebibytes: their list of leaf hashes is 64 MiB, the most that a receiver
# has to hold before it can check any of it.
MAX_SIZE = 1 << 41
MAX_LEAVES_BYTES = 8 + MAX_SIZE // LEAF_SIZE * HASH_SIZE

_LEAF_CONTEXT = "wherry file leaf 1"
_ROOT_CONTEXT = "wherry file root 1"


class WrongLeaves(ProtocolError):
    """A list of leaf hashes that belongs to another file than the one asked for."""


@frozen(order=True)
class FileID(DigestID):
    """Unpadded lower-case base32 of the root hash of a file's size and leaves."""

    WHAT: ClassVar = "file id"

    @classmethod
    def of_digest(cls, digest: bytes) -> "FileID":
        """Spell a root hash."""
        return cls(base32.encode(digest))


def leaf_hash(data: bytes | bytearray | memoryview) -> bytes:
    """Hash the content of one leaf (at most ``LEAF_SIZE`` bytes)."""
    return blake3(data, derive_key_context=_LEAF_CONTEXT).digest()


@lru_cache(maxsize=16)
def zero_leaf_hash(length: int) -> bytes:
    """Hash ``length`` zero bytes: what a hole in a sparse file holds."""
    return leaf_hash(bytes(length))


def leaf_count(size: int) -> int:
    """Count the leaves of a file of ``size`` bytes; an empty file has none."""
    return -(-size // LEAF_SIZE)


@frozen
class Leaves:
    """The size of a file and the hash of each of its leaves.

    Attributes:
        size: bytes in the file.
        hashes: the leaf hashes, one after the other.
    """

    size: int = field()
    hashes: bytes = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise Malformed("leaf hashes", f"a file of {self.size} bytes is too large")
        if len(self.hashes) != leaf_count(self.size) * HASH_SIZE:
            raise Malformed("leaf hashes", "their number does not fit the file's size")

    @classmethod
    def parse(cls, data: bytes | bytearray, id: FileID) -> "Leaves":
        """Read the bytes of ``encode`` that a peer sent for one file.

        Args:
            data: what came; the caller has bounded it by ``MAX_LEAVES_BYTES``.
            id: the file that was asked for.

        Raises:
            Malformed: not a list of leaf hashes.
            WrongLeaves: a list, but of another file.
        """
        if len(data) < 8:
            raise Malformed("leaf hashes", f"{len(data)} bytes are too few")
        hashes = bytes(memoryview(data)[8:])  # they may be long: one copy, not two
        leaves = cls(int.from_bytes(data[:8], "big"), hashes)
        if leaves.id != id:
            raise WrongLeaves(f"the leaf hashes are not those of {id.short}")
        return leaves

    @staticmethod
    def length(size: int) -> int:
        """Say how many bytes ``encode`` gives for a file of ``size`` bytes."""
        return 8 + leaf_count(size) * HASH_SIZE

    def encode(self) -> bytes:
        """Give the bytes that the root hash covers; the same go over the wire."""
        return self._head + self.hashes

    @property
    def _head(self) -> bytes:
        return self.size.to_bytes(8, "big")

    @property
    def id(self) -> FileID:
        """The id of the file."""
        root = blake3(self._head, derive_key_context=_ROOT_CONTEXT)
        root.update(self.hashes)
        return FileID.of_digest(root.digest())

    @property
    def count(self) -> int:
        """How many leaves there are."""
        return leaf_count(self.size)

    def leaf(self, index: int) -> bytes:
        """Give the hash of one leaf, counted from 0."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.hashes[index * HASH_SIZE : (index + 1) * HASH_SIZE]

    def span(self, index: int) -> tuple[int, int]:
        """Give the offsets at which one leaf starts and stops."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        start = index * LEAF_SIZE
        return start, min(start + LEAF_SIZE, self.size)
