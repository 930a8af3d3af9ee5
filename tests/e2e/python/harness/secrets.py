"""Every key that the suite ever uses, so that the last test can look for them in the hub's log."""

import base64
import os

_known: set[str] = set()


def remember(secret: str) -> str:
    if secret:
        _known.add(secret)
    return secret


def new_key(length: int = 32) -> str:
    """A fresh symmetric key, base64."""
    return remember(base64.b64encode(os.urandom(length)).decode())


def known() -> frozenset[str]:
    return frozenset(_known)
