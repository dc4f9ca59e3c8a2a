"""Keys that sign commits: what is understood of them, and what is said of those that cannot sign.

``keys`` has throwaway ones that gpg made, whose fingerprints gpg said.
"""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from controlplane.credentials import openpgp
from controlplane.credentials.signing import ALLOWED, KEY, PROGRAM, Signer, public_of, signer
from controlplane.credentials.sources import read_text
from controlplane.errors import InvalidInput
from controlplane.settings.personal import Reference, Value

KEYS = Path(__file__).parent / "keys"
OWN = "/home/workspace/.perry/credentials"


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("ed25519", "FFE1AC39DD191F4E8A31B50CB4A5A30D4C7424F7"),
        ("nistp256", "7E9B87AADC7366ED26DE1CEFE0BC55729B5F75DA"),
        ("rsa", "99AB195F97EB6762E121ECAAB667DF1FBD7EA993"),
        ("subkey", "FFE1AC39DD191F4E8A31B50CB4A5A30D4C7424F7"),
    ],
)
def test_a_key_is_known_by_its_fingerprint(name: str, fingerprint: str) -> None:
    """``subkey`` is without the secret of its first key, which is what careful people export."""
    assert openpgp.fingerprint((KEYS / f"{name}.asc").read_text()) == fingerprint


def test_what_cannot_sign_is_said() -> None:
    whole = (KEYS / "ed25519.asc").read_text()
    lines = whole.splitlines()
    for text, word in {
        (KEYS / "passphrase.asc").read_text(): "has a passphrase",
        (KEYS / "public.asc").read_text(): "is the public half",
        "\n".join([*lines[:3], "…", *lines[3:]]): "is damaged",
        "\n".join([*lines[:3], *lines[-3:]]): "not known here",
        "\n".join([lines[0], "", "xIUG", lines[-1]]): "not known here",
        "\n".join([lines[0], "", lines[-1]]): "no secret key",
    }.items():
        with pytest.raises(InvalidInput, match=word):
            openpgp.fingerprint(text)


def test_what_is_cut_short_is_a_sentence() -> None:
    lines = (KEYS / "nistp256.asc").read_text().splitlines()
    body = "".join(lines[2:-2])
    for length in range(4, len(body), 4):
        with contextlib.suppress(InvalidInput):
            text = "\n".join([lines[0], "", body[:length], lines[-1]])
            assert openpgp.fingerprint(text) == "7E9B87AADC7366ED26DE1CEFE0BC55729B5F75DA"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for kind, bits, passphrase in (("ed25519", "256", ""), ("rsa", "2048", ""), ("ecdsa", "256", "secret")):
        options = ["-b", bits, "-N", passphrase, "-C", "ada here", "-f", str(folder / kind)]
        subprocess.run(["ssh-keygen", "-q", "-t", kind, *options], check=True)
    shutil.copy(KEYS / "ed25519.asc", folder / "signing.asc")
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def signs(home: Path, given: Value, email: str = "ada@example.com") -> Signer:
    """``{"secret": "ed25519"}`` stands for the file of that name."""

    def look(reference: Reference) -> str:
        return read_text(reference.file or reference.secret, home)

    return signer(given, email, look, "/home/workspace", OWN)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_the_public_half_is_read_out_of_the_private_one(home: Path, kind: str) -> None:
    expected = " ".join((home / f"{kind}.pub").read_text().split()[:2])
    assert public_of((home / kind).read_text()) == expected


def test_a_public_half_that_is_damaged_is_none() -> None:
    for body in ("", "b3BlbnNzaC1rZXktdjEA", "b3BlbnNzaC1rZXktdjEA" + "/" * 40, "ä"):
        assert public_of(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----") == ""
    assert public_of("nothing of it") == ""


def test_an_ssh_key_is_copied_or_stands_in_perrys_folder(home: Path) -> None:
    copied = signs(home, "~/ed25519")
    assert (copied.key, copied.copied) == ("/home/workspace/.ssh/ed25519", "~/ed25519")
    public = " ".join((home / "ed25519.pub").read_text().split()[:2])
    assert copied.files == {ALLOWED: f'ada@example.com namespaces="git" {public}\n'.encode()}
    kept = signs(home, Reference(secret="ed25519"), email="two, people")
    assert (kept.key, kept.copied) == (f"{OWN}/{KEY}", "")
    assert kept.files[KEY] == (home / "ed25519").read_bytes()
    assert kept.files[ALLOWED].startswith(b"* ")


def test_a_key_of_an_older_form_is_known_by_the_file_beside_it(home: Path) -> None:
    convert = ["ssh-keygen", "-q", "-p", "-N", "", "-m", "PEM", "-f", str(home / "rsa")]
    subprocess.run(convert, check=True, capture_output=True)
    public = (home / "rsa.pub").read_text().split()[1]
    assert public.encode() in signs(home, "~/rsa").files[ALLOWED]
    (home / "rsa.pub").unlink()
    assert signs(home, "~/rsa").files == {}


def test_an_openpgp_key_comes_with_the_program_that_uses_it(home: Path) -> None:
    found = signs(home, "~/signing.asc")
    assert found.key.startswith("FFE1AC39") and f'program = "{OWN}/gpg"' in found.config
    assert set(found.files) == {KEY, PROGRAM} and found.copied == ""
    assert signs(home, Reference(secret="signing.asc")) == found


def test_what_is_no_key_is_said(home: Path) -> None:
    for given, word in {
        "~/ed25519.pub": "no private key",
        "~/nowhere": "does not exist",
        (KEYS / "ed25519.asc").read_text(): "does not belong into config.json",
    }.items():
        with pytest.raises(InvalidInput, match=word) as caught:
            signs(home, given)
        assert "lFgEawGiORYJKwYBBAHaRw8BAQdARX3wU5Rsi9oxZei7oFqiAFZG0yPZGszAoMqW" not in str(caught.value)
