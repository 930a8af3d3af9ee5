"""Every key that the suite ever uses, and every output of the hub that must not hold one.

With NAVE_SECRETS_DIR in the environment both are also written there, so that `cargo xtask test` can look for the secrets of
all suites in the outputs of all (tests/src/leaks.rs).
"""

import base64
import itertools
import os
import re
from pathlib import Path

SHORTEST = 16
"""Shorter texts are no secrets: they would be found by accident."""

_known: set[str] = set()
_outputs: dict[str, str] = {}
_numbers = itertools.count()


def remember(secret: str) -> str:
    """Notes a secret; of a private key each line of its text."""
    for line in (secret or "").splitlines():
        if len(line) >= SHORTEST and not line.startswith("-----") and line not in _known:
            _known.add(line)
            _write("known", f"python-{os.getpid()}", line + "\n")
    return secret


def new_key(length: int = 32) -> str:
    """A fresh symmetric key, base64."""
    return remember(base64.b64encode(os.urandom(length)).decode())


def collect(what: str, text: str) -> None:
    """Notes an output in which no secret may be."""
    name = f"{next(_numbers)}-{re.sub(r'[^A-Za-z0-9]', '-', what)}"
    _outputs[name] = text
    _write("output", f"python-{os.getpid()}-{name}", text)


def leaks() -> list[str]:
    """The outputs that hold a secret."""
    return [name for name, text in _outputs.items() if any(secret in text for secret in _known)]


def known() -> frozenset[str]:
    return frozenset(_known)


def _write(folder: str, name: str, text: str) -> None:
    ledger = os.environ.get("NAVE_SECRETS_DIR")
    if ledger:
        with (Path(ledger) / folder / name).open("a") as file:
            file.write(text)
