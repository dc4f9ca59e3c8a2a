"""What a wake is, what an answer means, and where nothing is ever sent: values in, values out."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

import httpcore
import pytest

from controlplane.errors import NotReady
from controlplane.settings.hooks import GatewaySettings, tailnet_ports
from controlplane.wake.dialer import Dialer
from controlplane.wake.lanes import Lanes
from controlplane.wake.message import audible, bounded, clean
from controlplane.wake.passage import Passage
from controlplane.wake.rate import Rate
from controlplane.wake.signature import key_of, signed
from controlplane.wake.target import refused, target_of
from controlplane.wake.verdict import LONGEST_PAUSE, LONGEST_WISH, pause_after, wished_pause
from protocol.wake import WakeWay
from tests.fakes.wake_gateway import Gateway

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def gateway(url: str, kind: str = "openclaw") -> GatewaySettings:
    return GatewaySettings(name="home", url=url, token_file="token", kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://home", "must begin with http"),
        ("home:18789", "must begin with http"),
        ("http://", "must begin with http"),
        ("http://me:hush@home", "a user or a password"),
        ("http://home/hooks/wake?token=hush", "after its path"),
        ("http://home:0", "port 0"),
        ("http://home:99999", "cannot be read"),
        ("http://ho me", "characters"),
        ("http://169.254.169.254/latest", "metadata"),
        ("http://[fe80::1]:18789", "metadata"),
        ("http://[::ffff:169.254.169.254]/", "metadata"),
        ("http://[64:ff9b::a9fe:a9fe]/", "metadata"),
        ("http://0.0.0.0:18789", "nobody's address"),
        ("http://224.0.0.1", "nobody's address"),
    ],
)
def test_a_url_that_is_not_allowed_says_why(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        gateway(url)


@pytest.mark.parametrize(
    ("url", "address", "why"),
    [
        ("http://gateway.example", "127.0.0.1", "means this machine itself"),
        ("http://gateway.example", "::ffff:127.0.0.1", "means this machine itself"),
        ("http://gateway.example", "64:ff9b::7f00:1", "means this machine itself"),
        ("http://gateway.example", "169.254.169.254", "metadata"),
        ("http://127.0.0.1:7391", "127.0.0.1", "this Perry itself"),
        ("http://perry.example:7391", "100.64.0.9", "this Perry itself"),
        ("http://127.0.0.1:18789", "127.0.0.1", None),
        ("http://localhost:18789", "::1", None),
        ("http://gateway.example", "192.168.1.7", None),
    ],
)
def test_what_a_name_may_turn_out_to_mean(url: str, address: str, why: str | None) -> None:
    target = target_of(gateway(url), on_tailnet=False, domain=None)
    said = refused(target, address, own_port=7391, own_addresses=["100.64.0.9"])
    assert said is None if why is None else why in str(said)


async def test_a_name_that_is_bound_anew_is_not_followed(gateway_of_ours: Gateway, tmp_path: Path) -> None:
    """The addresses that were looked at are the ones that are connected to, and all of them have to do."""
    target = target_of(gateway(f"http://gateway.example:{gateway_of_ours.port}"), on_tailnet=False, domain=None)

    async def resolve(host: str, port: int) -> list[str]:
        return ["192.0.2.1", "127.0.0.1"]

    passage = Passage(tmp_path / "none", tmp_path / "places", tuple)
    dialer = Dialer(target, own_port=1, own_addresses=tuple, passage=passage, resolve=resolve)
    with pytest.raises(httpcore.ConnectError, match="means this machine itself"):
        await dialer.connect_tcp(target.host, target.port)
    with pytest.raises(httpcore.ConnectError, match="no gateway of the settings"):
        await dialer.connect_tcp("127.0.0.1", target.port)


@pytest.fixture
async def gateway_of_ours():  # type: ignore[no-untyped-def]
    ours = Gateway()
    async with ours.open():
        yield ours
    assert not ours.heard


@pytest.mark.parametrize(
    ("host", "way"),
    [
        ("assistant", WakeWay.TAILNET),
        ("assistant.perry.internal", WakeWay.TAILNET),
        ("assistant.tail1234.ts.net", WakeWay.TAILNET),
        ("100.64.0.7", WakeWay.TAILNET),
        ("[fd7a:115c:a1e0::7]", WakeWay.TAILNET),
        ("localhost", WakeWay.DIRECT),
        ("127.0.0.1", WakeWay.DIRECT),
        ("192.168.1.7", WakeWay.DIRECT),
        ("gateway.example.com", WakeWay.DIRECT),
    ],
)
def test_which_names_are_the_tailnets(host: str, way: WakeWay) -> None:
    url = f"http://{host}:18789"
    assert target_of(gateway(url), on_tailnet=True, domain="perry.internal").way is way
    assert tailnet_ports([gateway(url)], "perry.internal") == ((18789,) if way is WakeWay.TAILNET else ())
    assert target_of(gateway(url), on_tailnet=False, domain=None).way is WakeWay.DIRECT


def test_paths() -> None:
    def path(url: str, kind: str = "openclaw") -> str:
        return target_of(gateway(url, kind), on_tailnet=False, domain=None).path

    assert path("http://home:18789") == path("http://home:18789/") == "/hooks/wake"
    assert path("http://home:18789/mine/wake") == "/mine/wake"
    assert path("https://home", "generic") == "/"
    assert path("https://home/in/abc", "generic") == "/in/abc"


def test_text_is_cleaned_bounded_and_heard() -> None:
    assert clean(" a\x00\x1b[31m\u202e\u200b\U000e0041b\r\nc\u2028d\te\ud800 ") == "a[31mb\nc\nd\te"
    assert clean("👩\u200d👩\u200d👧 ✅") == "👩\u200d👩\u200d👧 ✅"
    assert bounded("é" * 100, 50).endswith("(cut off)") and len(bounded("é" * 100, 50).encode()) <= 50
    assert audible("Heartbeat wake, heartbeats; REASON PERIODIC") == "Heart-beat wake, heart-beats; REASON-PERIODIC"


def test_pauses_grow_and_have_an_end() -> None:
    most = [pause_after(failures, lambda: 1.0) for failures in (1, 2, 3, 11, 10_000)]
    assert most == [1.0, 2.0, 4.0, LONGEST_PAUSE, LONGEST_PAUSE]
    assert pause_after(3, lambda: 0.0) == 2.0


def test_retry_after_in_both_forms() -> None:
    assert wished_pause("7", NOW) == 7.0
    assert wished_pause("Fri, 02 Jan 2026 03:04:15 GMT", NOW) == 10.0
    assert wished_pause("9" * 30, NOW) == LONGEST_WISH
    assert wished_pause("Thu, 01 Jan 1970 00:00:00 GMT", NOW) == 0.0
    assert wished_pause("soon", NOW) is None


def test_signatures_are_those_of_standard_webhooks() -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
    headers = signed(key_of(secret), "w-1", NOW, b'{"a":1}')
    said = f"w-1.{int(NOW.timestamp())}." + '{"a":1}'
    expected = hmac.new(b"0123456789abcdef0123456789abcdef", said.encode(), hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert headers["webhook-id"] == "w-1"
    for wrong in ("hush", "whsec_", "whsec_!!", "whsec_" + base64.b64encode(b"short").decode()):
        with pytest.raises(NotReady, match="whsec_"):
            key_of(wrong)


def test_lanes_take_turns_and_keep_their_order() -> None:
    lanes = Lanes()
    for number, name in enumerate("aab"):
        lanes.put(name, number)
    order = []
    while (following := lanes.next(0.0)) is not None:
        order.append(following)
        lanes.done(*following)
    assert order == [("a", 0), ("b", 2), ("a", 1)]
    lanes.put("a", 5)
    lanes.put("a", 4)
    lanes.later("a", 9.0)
    lanes.put("b", 6)
    assert (lanes.next(0.0), lanes.due()) == (("b", 6), 0.0)
    lanes.done("b", 6)
    assert (lanes.next(0.0), lanes.due(), lanes.next(9.0)) == (None, 9.0, ("a", 4))


def test_a_caller_may_so_often() -> None:
    now = 0.0
    rate = Rate(lambda: now, burst=3, a_second=1)
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 0]
    assert rate.wait("a") == 1.0
    assert rate.wait("b") == 0
    now = 1.0
    assert rate.wait("a") == 0


def test_the_ports_of_gateways_on_the_tailnet() -> None:
    urls = (
        "https://a",
        "http://a.",
        "http://b:18789",
        "https://c:18789/x",
        "http://192.168.1.7:9",
        "http://d.example:8",
    )
    assert tailnet_ports([gateway(url) for url in urls], None) == (80, 443, 18789)
    assert tailnet_ports([gateway(url) for url in urls], "example") == (8, 80, 443, 18789)
