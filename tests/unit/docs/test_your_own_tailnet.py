"""What docs/howto/your-own-tailnet.md tells people to put into their policies is what the tests and the errors have."""

import json
import re
from pathlib import Path

from controlplane.adapters.tailnet.tailscale_api import TAG_OWNERS
from tests.contract.tailnet.their_headscale import POLICY

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "your-own-tailnet.md"


def test_policies() -> None:
    tailscale, headscale = (json.loads(each) for each in re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert tailscale["tagOwners"] == json.loads("{" + TAG_OWNERS + "}")["tagOwners"]
    assert headscale == POLICY
