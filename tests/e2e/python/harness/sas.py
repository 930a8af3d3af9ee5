"""Shared access signatures, written from the public description of their form."""

import base64
import hashlib
import hmac
import time
from urllib.parse import quote

from harness.secrets import remember

HOUR = 3600


def sign(key: str, text: str) -> str:
    digest = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def token(resource: str, key: str, policy: str | None = None, lifetime: int = HOUR, encode: bool = True) -> str:
    """A token for `resource`. `encode=False` leaves the resource as it is, like the SDKs for C and Java do."""
    expiry = int(time.time()) + lifetime
    sr = quote(resource, safe="") if encode else resource
    signature = remember(quote(remember(sign(key, f"{sr}\n{expiry}")), safe=""))
    text = f"SharedAccessSignature sr={sr}&sig={signature}&se={expiry}"
    return text if policy is None else f"{text}&skn={policy}"


def derive(group_key: str, registration_id: str) -> str:
    """The key of a device that an enrollment group with a symmetric key stands for."""
    return remember(sign(group_key, registration_id))


def parse_connection_string(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";") if part)
