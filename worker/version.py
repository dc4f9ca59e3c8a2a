"""Which worker this is: the digest of all that its image was made of, which the image's build writes beside this."""

from pathlib import Path

UNPACKED = "source"
"""The version of a worker that runs from a checkout."""


def own_version() -> str:
    """As the control plane compares it."""
    try:
        return (Path(__file__).parent / "VERSION").read_text().strip() or UNPACKED
    except FileNotFoundError:
        return UNPACKED
