"""Three words for two people to compare."""

import hashlib
from functools import cache

from mnemonic import Mnemonic

_BITS = 11  # of a word in a list of 2048


@cache
def _words() -> tuple[str, ...]:
    return tuple(Mnemonic("english").wordlist)


def three_words(digest: bytes) -> str:
    """Name a hash by three words of the BIP 39 English list.

    Three words are all that people compare with care, and 33 bits are all that
    three words hold: whoever wants a second document with the same words tries
    2**33 of them. A plain hash lets a graphics card do that in seconds. So the
    hash is stretched first by scrypt, which takes about 0.1 s and 32 MiB for
    each try: 2**33 tries cost 27 years of a processor core. That is out of reach
    in the minutes between showing the words and comparing them, but not for ever
    out of reach of whoever rents ten thousand cores: the words say that what
    arrived is what was sent, and are to be compared at once.

    Args:
        digest: what ``Signed.digest`` gives, or a hash as long.

    Returns:
        The words, with a space between them. Takes about 0.1 s.
    """
    stretched = hashlib.scrypt(
        digest,
        salt=b"wherry words 1",
        n=2**15,
        r=8,
        p=1,
        maxmem=64 * 2**20,  # 128 * n * r = 32 MiB, and a little for OpenSSL
        dklen=5,
    )
    number = int.from_bytes(stretched, "big") >> (40 - 3 * _BITS)
    places = (number >> 2 * _BITS, number >> _BITS, number)
    return " ".join(_words()[place % 2**_BITS] for place in places)
