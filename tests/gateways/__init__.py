"""The gateways that people have, from npm, as real ones for tests: openclaw and clawdbot, on loopback, with a model
that is a fake.

Each is brought from npm's registry once for each lock file, and lies in ``.build/npm`` then.
"""

from tests.gateways.running import CLAWDBOT, OPENCLAW, RealGateway, running

__all__ = ["CLAWDBOT", "OPENCLAW", "RealGateway", "running"]
