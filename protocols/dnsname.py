"""Plain DNS names, for programs that are not Wherry."""

import re
from typing import Final

from protocols.certificates import DOMAIN
from protocols.errors import Malformed, excerpt

NAMES: Final = 16
"""The most plain names that one device may have."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_name(text: str) -> str:
    """Give a DNS name in lower case if a certificate may carry it.

    Raises:
        Malformed: not a DNS name, or one that Wherry uses itself.
    """
    name = text.lower()
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise Malformed("name", f"{excerpt(text)} is not a DNS name")
    if labels[-1].isdigit():
        raise Malformed("name", f"{excerpt(text)} is an address, not a DNS name")
    if name == DOMAIN or name.endswith(f".{DOMAIN}"):
        raise Malformed("name", f"{DOMAIN} is Wherry's own domain")
    return name
