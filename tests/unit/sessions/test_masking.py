"""Which secrets are taken out of what is indexed, and what is left alone."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.sessions.aggregate import message_of, title_of
from controlplane.sessions.masking import MASKED, Mask
from protocol.sessions import Block, Message, MessageRole, Text, ToolCall, ToolResult
from protocol.worker import BLOCK_LIMIT, SessionFacts
from worker.sessions import blocks

A = "A1b2C3d4E5f6G7h8I9j0" * 4
SECRETS = [
    ("sk-", f"sk-ant-api03-{A}"),
    ("sk-", f"sk-proj-{A}"),
    ("ghp_", f"ghp_{A[:36]}"),
    ("ghs_", f"ghs_{A[:36]}"),
    ("github_pat_", f"github_pat_{A}"),
    ("glpat-", f"glpat-{A[:20]}"),
    ("glagent-", f"glagent-{A[:50]}"),
    ("secretAccessKey=", f"secretAccessKey={A[:40]}"),
    ("xoxb-", f"xoxb-123456789012-{A[:24]}"),
    ("AKIA", "AKIAIOSFODNN7EXAMPLE"),
    ("AIza", f"AIza{A[:35]}"),
    ("hf_", f"hf_{A[:34]}"),
    ("npm_", f"npm_{A[:36]}"),
    ("sk_live_", f"sk_live_{A[:24]}"),
    ("tskey-", f"tskey-auth-{A[:20]}"),
    ("eyJ", f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{A[:43]}"),
    ("Bearer ", f"Bearer {A[:32]}"),
]


@pytest.mark.parametrize(("keep", "secret"), SECRETS)
@pytest.mark.parametrize("around", ["{}", "a {} b", 'KEY="{}"', "url?k={}&x", "{}\n", '{{"k":"{}"}}', "({})."])
def test_secrets_are_masked(keep: str, secret: str, around: str) -> None:
    masked = Mask()(around.format(secret))
    assert masked.startswith(around.partition("{}")[0].replace("{{", "{"))
    assert keep + MASKED in masked
    assert secret not in masked and A[:16] not in masked and "IOSFODNN7" not in masked


@pytest.mark.parametrize(
    "header", ["Authorization: Bearer hunter2", 'authorization":"Basic dXNlcjpwYXNz', "AUTHORIZATION: token abcdef"]
)
def test_headers(header: str) -> None:
    masked = Mask()(f"curl -H '{header}' http://x")
    assert MASKED in masked
    assert "http://x" in masked
    assert header.rpartition(" ")[2] not in masked


def test_private_keys_as_they_stand_in_files_and_in_json() -> None:
    for newline in ("\n", "\\n"):
        key = newline.join(
            ["-----BEGIN OPENSSH PRIVATE KEY-----", "b3BlbnNzaC1rZXk", "-----END OPENSSH PRIVATE KEY-----"]
        )
        masked = Mask()(f"before {key} after")
        assert masked == f"before -----BEGIN OPENSSH PRIVATE KEY-----{MASKED} after"
    # One that is cut off has no end.
    assert "b3Blb" not in Mask()("-----BEGIN RSA PRIVATE KEY-----\nb3BlbnNz")


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn is a library, and task-that-has-a-very-long-name-indeed is a task",
        "the bearer of the ring came over the mountains",
        "https://example.com/xoxo",
        "-----BEGIN PUBLIC KEY----- is no secret",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "AKIA is a prefix; SG. is another; eyJ begins a token",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Mask()(text) == text


def test_what_perry_knows_is_masked_wherever_it_stands() -> None:
    mask = Mask(["hunter2hunter2", "production", "p4ss", "first line of it 1\nsecond line of it 2"])
    assert mask("x hunter2hunter2 y") == f"x {MASKED} y"
    assert mask("in production with p4ss") == "in production with p4ss"
    assert mask("| second line of it 2 |") == f"| {MASKED} |"


def test_what_is_known_may_look_like_a_token_or_begin_like_another() -> None:
    mask = Mask(["sk-known-to-perry", "sk-known-to-perry-and-longer-0", "eyJ1-is-known"])
    assert mask("a sk-known-to-perry b") == f"a {MASKED} b"
    assert mask("sk-known-to-perry-and-longer-0") == MASKED
    assert Mask(["not-\udcff-utf-8-1", "hunter2hunter2"])("hunter2hunter2") == MASKED
    assert mask("eyJ eyJ1-is-known") == f"eyJ {MASKED}"


@pytest.mark.parametrize("after", ["", " and so on", " and so on" * 1_000])
@pytest.mark.parametrize("kind", [lambda text: Text(text=text), lambda text: ToolResult(call_id="c", output=text)])
def test_a_secret_across_the_limit_leaves_nothing(kind: Callable[[str], Block], after: str) -> None:
    for before in range(1, 44):
        text = "x " * (BLOCK_LIMIT // 2 - before) + f"ghp_{A[:36]}" + after
        found = kept(kind(text))
        assert len(found) <= BLOCK_LIMIT and A[:2] not in found


def test_what_was_masked_brings_in_no_half_of_another_secret() -> None:
    """Where the text is cut to be masked, a secret has no end; masked, it is shorter than the limit."""
    key = "-----BEGIN PRIVATE KEY-----" + "x" * 100_000 + "-----END PRIVATE KEY-----"
    for at in range(1, 40):
        secret = f" ghp_{A[:36]} "
        text = key.ljust(BLOCK_LIMIT + 4096 - at, ".") + secret + "and so on"
        assert A[:2] not in kept(Text(text=text))


KNOWN = "".join(f"Q{number}" for number in range(2_500))
"""A secret that Perry knows, longer than any that has a shape."""


@settings(deadline=None, max_examples=60)
@given(
    secret=st.sampled_from([*(secret for _, secret in SECRETS), KNOWN, f"Authorization: Basic {A[:40]}"]),
    at=st.floats(0, 1),
    around=st.sampled_from([(" ", " "), ("'", "'"), ("=", "&x"), ('":"', '"}'), ("", "")]),
    filler=st.sampled_from(["x ", "authorization:basic hunter ", "-----begin private key----- ", "é\n"]),
    make=st.sampled_from(
        [blocks.text, blocks.thinking, partial(blocks.tool_result, "c"), partial(blocks.tool_call, "c", "n")]
    ),
)
def test_a_secret_across_the_workers_cut_leaves_nothing(
    secret: str, at: float, around: tuple[str, str], filler: str, make: Callable[[str], Block]
) -> None:
    """Wherever in the secret the worker cuts, and whatever is masked before it."""
    before = (filler * BLOCK_LIMIT)[: BLOCK_LIMIT - len(around[0]) - round(at * len(secret))]
    told = make(before + around[0] + secret + around[1] + filler * 10)
    assert told.omitted > 0
    found = kept(told, Mask([KNOWN]))
    assert len(found) <= BLOCK_LIMIT and len(found) > BLOCK_LIMIT // 2
    assert not any(piece in found for piece in (A[:2], KNOWN[:4], "IOSF", "eyJhbG"))


def test_what_is_left_out_is_counted() -> None:
    told = blocks.text("x" * (BLOCK_LIMIT + 1_000))
    message = message_of(Message(ordinal=0, id="m", role=MessageRole.USER, blocks=[told]), Mask(), now=0)
    assert message is not None and isinstance(message.blocks[0], Text)
    assert len(message.blocks[0].text) + message.blocks[0].omitted == BLOCK_LIMIT + 1_000


def test_a_title_is_masked_before_it_is_cut() -> None:
    for before in range(150, 200):
        title = "t" * before + f" ghp_{A[:36]}"
        assert A[:2] not in title_of(SessionFacts(title=title), [], "", False, Mask())


def kept(block: Block, mask: Mask | None = None) -> str:
    """The text of a block as it is kept."""
    told = Message(ordinal=0, id="m", role=MessageRole.TOOL, blocks=[block])
    message = message_of(told, mask or Mask(), now=0)
    assert message is not None
    [found] = message.blocks
    if isinstance(found, ToolResult):
        return found.output
    return found.input if isinstance(found, ToolCall) else found.text


def test_no_text_takes_long() -> None:
    """Texts that make a careless pattern try again and again; the time limit of the tests is what fails."""
    for evil in (
        "sk-" * 100_000,
        "eyJ" * 100_000,
        "xoxb-" * 60_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
        "Bearer " * 40_000,
    ):
        Mask()(evil)
        Mask()(evil + "a" * 200_000)
