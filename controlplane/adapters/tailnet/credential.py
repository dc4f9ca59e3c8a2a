"""What one's own tailnet is asked with: a secret in a file, whose kind shows in how it begins."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from controlplane.errors import CredentialRefused, NotReady
from controlplane.secret_files import read_secret


class Kind(StrEnum):
    """Kinds of credential, by the names that their makers give them."""

    OAUTH_CLIENT = "OAuth client"
    API_TOKEN = "API access token"
    AUTH_KEY = "auth key"
    HEADSCALE_API_KEY = "API key"


TAILSCALE: Mapping[str, Kind] = {
    "tskey-client-": Kind.OAUTH_CLIENT,
    "tskey-api-": Kind.API_TOKEN,
    "tskey-auth-": Kind.AUTH_KEY,
}

HEADSCALE: Mapping[str, Kind] = {"hskey-api-": Kind.HEADSCALE_API_KEY}


class Credential(msgspec.Struct, frozen=True):
    """``id`` is the part of it that is no secret; empty where it has none."""

    kind: Kind
    id: str
    secret: str
    file: Path

    def __str__(self) -> str:
        return f"{self.kind} {self.id} (in {self.file})" if self.id else f"{self.kind} (in {self.file})"

    def __repr__(self) -> str:
        return f"Credential({self})"


def read_credential(name: str, folder: Path, known: Mapping[str, Kind], *, wanted: str) -> Credential:
    """The credential in the file that ``tailnet.credentialFile`` names. CredentialRefused says what is wrong.

    ``known`` has the kinds by what they begin with; ``wanted`` says in words which there are.
    """
    if not name:
        raise CredentialRefused(
            f"There is no credential for your tailnet; put {wanted} into a file that only you can read, and name it: "
            "`perry config set tailnet.credentialFile FILE`."
        )
    file = folder / Path(name).expanduser()
    try:
        text = read_secret(file)
    except NotReady as exc:
        raise CredentialRefused(exc.message) from exc
    for beginning, kind in known.items():
        if text.startswith(beginning):
            number, _, secret = text.removeprefix(beginning).partition("?")[0].partition("-")
            if secret:
                return Credential(kind, number, text.partition("?")[0], file)
    raise CredentialRefused(f"{file} does not hold {wanted}; put one there, on a line of its own.")
