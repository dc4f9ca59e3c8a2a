"""Signatures of Standard Webhooks (standardwebhooks.com, version 1, symmetric). Pure."""

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

from controlplane.errors import NotReady

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key in a secret as it is handed out, ``whsec_`` and base64. NotReady where it is none."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise NotReady(
            f"The tokenFile of a gateway of kind generic holds a signing secret: {PREFIX} and 24 to 64 bytes in "
            f"base64; `printf {PREFIX}; openssl rand -base64 32` makes one."
        )
    return key


def signed(key: bytes, id_: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that say who sent a body, and when."""
    seconds = str(int(at.timestamp()))
    digest = hmac.new(key, b".".join((id_.encode(), seconds.encode(), body)), hashlib.sha256).digest()
    return {
        "webhook-id": id_,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
