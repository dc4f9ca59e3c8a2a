"""The version that all parts of one release share."""

from typing import Final

VERSION: Final = "0.1.0"

API_VERSION: Final = 1
"""Grows when an old client would misunderstand a new server. What is only added does not count: a client passes over
fields, words and events that it does not know, and is told of procedures and inputs that its server does not."""

VERSION_HEADER: Final = "X-Perry-Version"
API_HEADER: Final = "X-Perry-Api"
"""In every answer of a control plane, the upgrade to a WebSocket included."""
