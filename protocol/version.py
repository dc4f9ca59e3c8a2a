"""The version that all parts of one release share."""

from typing import Final

VERSION: Final = "0.1.0"

API_VERSION: Final = 1
"""Grows when an old client would misunderstand a new server."""
