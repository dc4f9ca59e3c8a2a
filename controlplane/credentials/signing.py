"""How git signs in a workspace, with an ssh key or an OpenPGP key that a person brings. Pure."""

import base64
import contextlib
import posixpath
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from controlplane.credentials import openpgp
from controlplane.errors import InvalidInput, PerryError
from controlplane.settings.personal import Reference, Value

KEY: Final = "signing-key"
PROGRAM: Final = "gpg"
ALLOWED: Final = "allowed_signers"

GPG: Final = """#!/bin/sh
# git's gpg, with the key that Perry brought. It is in a keyring, in memory, for as long as a signature takes; ~/.gnupg
# has your own keys. One of them that you name with `git config --global user.signingkey` is used instead.
own="$HOME/.perry/credentials"
command -v gpg >/dev/null || {
    echo "gpg is not installed in this workspace; run: sudo apt-get update && sudo apt-get install gpg gpg-agent" >&2
    exit 1
}
fingerprint="$(git config --file "$own/gitconfig" user.signingkey)"
verify=
for last; do [ "$last" != --verify ] || verify=yes; done
[ -n "$fingerprint" ] && { [ "$last" = "$fingerprint" ] || [ -n "$verify" ]; } || exec gpg "$@"
folder="$(mktemp -d /dev/shm/perry-gpg.XXXXXXXX)" || exit
trap 'gpgconf --homedir "$folder" --kill all 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 130' HUP INT TERM
said="$(gpg --homedir "$folder" --batch --no-tty --import "$own/signing-key" 2>&1)" || {
    printf '%s\\n' "$said" >&2
    exit 1
}
if [ -n "$verify" ]; then
    gpg --keyring "$folder/pubring.kbx" --trusted-key "$fingerprint" "$@"
else
    gpg --homedir "$folder" --no-tty --pinentry-mode error --trusted-key "$fingerprint" "$@"
fi
"""

_BEGIN: Final = "-----BEGIN OPENSSH PRIVATE KEY-----"
_END: Final = "-----END OPENSSH PRIVATE KEY-----"
_MAGIC: Final = b"openssh-key-v1\0"


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """``key`` is git's ``user.signingkey``, ``config`` what its configuration says besides.

    ``files`` stand in Perry's folder; ``copied`` is a private ssh key of the machine that goes into ``~/.ssh``.
    """

    key: str
    config: str
    files: Mapping[str, bytes] = {}
    copied: str = ""


def signer(given: Value, email: str, lookup: Callable[[Reference], str], home: str, own: str) -> Signer:
    """Who signs with that key: a path of the machine, or a reference; ``own`` is Perry's folder in the workspace's
    ``home``. PerryError says why nobody can."""
    if isinstance(given, Reference):
        text = lookup(given)
    elif "PRIVATE KEY" in given:
        raise InvalidInput("name the file that has the key; a key itself does not belong into config.json.")
    else:
        text = lookup(Reference(file=given))
    text = text.strip() + "\n"
    if openpgp.is_key(text):
        return Signer(
            key=openpgp.fingerprint(text),
            config=f'[gpg]\n\tprogram = "{own}/{PROGRAM}"\n',
            files={KEY: text.encode(), PROGRAM: GPG.encode()},
        )
    if "PRIVATE KEY" not in text:
        raise InvalidInput(
            "this is no private key; name one of ssh, or of OpenPGP (`gpg --armor --export-secret-keys`)."
        )
    config, files, public = "[gpg]\n\tformat = ssh\n", {}, public_of(text)
    if isinstance(given, Reference):
        path, copied = f"{own}/{KEY}", ""
        files[KEY] = text.encode()
    else:
        path, copied = f"{home}/.ssh/{posixpath.basename(given)}", given
        if not public:
            with contextlib.suppress(PerryError):
                public = " ".join(lookup(Reference(file=f"{given}.pub")).split()[:2])
    if public:
        # Without this git knows not even its own signatures.
        config += f'[gpg "ssh"]\n\tallowedSignersFile = "{own}/{ALLOWED}"\n'
        files[ALLOWED] = f'{_principal(email)} namespaces="git" {public}\n'.encode()
    return Signer(key=path, config=config, files=files, copied=copied)


def _principal(email: str) -> str:
    """As ``allowed_signers`` may have it; it knows patterns."""
    return email if email and not any(each.isspace() or each in '",#*?!' for each in email) else "*"


def public_of(text: str) -> str:
    """The public half of an OpenSSH private key, as in ``.pub`` files; empty where it is of another form."""
    try:
        rest = text.partition(_BEGIN)[2]
        body, _, _ = rest.partition(_END)
        data = base64.b64decode("".join(body.split()), validate=True)
        if not data.startswith(_MAGIC):
            return ""
        position = len(_MAGIC)
        for _ in range(3):  # cipher, key derivation, its options
            position += 4 + int.from_bytes(data[position : position + 4])
        position += 4  # how many keys
        size = int.from_bytes(data[position : position + 4])
        blob = data[position + 4 : position + 4 + size]
        kind = blob[4 : 4 + int.from_bytes(blob[:4])].decode("ascii")
    except ValueError:
        return ""
    plain = kind.replace("-", "").replace("@", "").replace(".", "").isalnum()
    return f"{kind} {base64.b64encode(blob).decode()}" if size and len(blob) == size and plain else ""
