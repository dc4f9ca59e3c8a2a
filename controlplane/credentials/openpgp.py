"""Reads an OpenPGP secret key as far as is needed to name it, and to tell whether it wants a passphrase. Pure.

RFC 4880, 5.5, and RFC 9580, 5.5 (the algorithms); GnuPG's doc/DETAILS (secrets that are not there).
"""

import base64
import hashlib
from collections.abc import Iterator
from typing import Final

from controlplane.errors import InvalidInput

_BLOCK: Final = "-----BEGIN PGP PRIVATE KEY BLOCK-----"
_END: Final = "-----END PGP PRIVATE KEY BLOCK-----"

_INTEGERS: Final = {1: 2, 2: 2, 3: 2, 16: 3, 17: 4}
"""How many integers the public half has, by algorithm."""
_CURVES: Final = {18: True, 19: False, 22: False}
"""Algorithms with a curve's name before one integer, and whether more comes after it."""
_FIXED: Final = {25: 32, 26: 56, 27: 32, 28: 57}
"""Algorithms whose public half is so many bytes."""


def is_key(text: str) -> bool:
    return "-----BEGIN PGP" in text


def fingerprint(text: str) -> str:
    """Of the first key, which must be able to sign without a passphrase, or have a subkey that is."""
    try:
        keys = [_secret_key(body) for tag, body in _packets(_unarmored(text)) if tag in (5, 7)]
    except (IndexError, KeyError):
        raise InvalidInput(
            "this OpenPGP key is of a kind that is not known here; export it with `gpg --armor --export-secret-keys`."
        ) from None
    if not keys:
        raise InvalidInput("there is no secret key in it; export one with `gpg --armor --export-secret-keys`.")
    if not any(usable for _, usable in keys):
        raise InvalidInput(
            "the key has a passphrase, or lies on a card, and nobody is there to type it; "
            "bring a key of its own for workspaces, without one (docs/howto/credentials.md)."
        )
    return keys[0][0]


def _unarmored(text: str) -> bytes:
    if _BLOCK not in text:
        raise InvalidInput(
            "this is the public half of a key; export the secret one: `gpg --armor --export-secret-keys`."
        )
    lines = text.partition(_BLOCK)[2].partition(_END)[0].splitlines()[1:]
    headers = next((number for number, line in enumerate(lines) if not line.strip()), 0)
    body = [line.strip() for line in lines[headers:] if not line.startswith("=")]
    try:
        return base64.b64decode("".join(body), validate=True)
    except ValueError:
        raise InvalidInput("this OpenPGP key is damaged; export it anew.") from None


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of each. IndexError for what goes on beyond the end."""
    position = 0
    while position < len(data):
        head = data[position]
        position += 1
        if head & 0x40:
            tag, first = head & 0x3F, data[position]
            position += 1
            if first < 192:
                size = first
            elif first < 224:
                size = ((first - 192) << 8) + data[position] + 192
                position += 1
            elif first == 255:
                size = int.from_bytes(data[position : position + 4])
                position += 4
            else:
                raise IndexError("a part of a packet, which no key is")
        else:
            tag, width = (head >> 2) & 0x0F, {0: 1, 1: 2, 2: 4}[head & 3]
            size = int.from_bytes(data[position : position + width])
            position += width
        if not head & 0x80 or position + size > len(data):
            raise IndexError("no packet, or not all of it")
        yield tag, data[position : position + size]
        position += size


def _secret_key(body: bytes) -> tuple[str, bool]:
    """(fingerprint, whether its secret is there for everybody). KeyError for another version or algorithm."""
    if body[0] != 4:
        raise KeyError(body[0])
    end, algorithm = 6, body[5]

    def integer(start: int) -> int:
        return start + 2 + (int.from_bytes(body[start : start + 2]) + 7) // 8

    if algorithm in _INTEGERS:
        for _ in range(_INTEGERS[algorithm]):
            end = integer(end)
    elif algorithm in _CURVES:
        end = integer(end + 1 + body[end])
        if _CURVES[algorithm]:
            end += 1 + body[end]
    else:
        end += _FIXED[algorithm]
    public = body[:end]
    digest = hashlib.sha1(b"\x99" + len(public).to_bytes(2) + public, usedforsecurity=False)
    return digest.hexdigest().upper(), body[end] == 0
