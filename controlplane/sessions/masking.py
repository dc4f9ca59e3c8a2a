"""Takes secrets out of what is indexed: what has the shape of a token, and what Perry itself knows to be one.

Values in, values out. A pattern is tried only where one of its literals stands in the text. All literals, and all
values that Perry knows, are looked for at once (Aho and Corasick's automaton): three seconds for a gigabyte.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import ahocorasick_rs
import msgspec

MASKED: Final = "[masked]"

LONGEST: Final = 4_096
"""Characters of the longest secret that is expected, unless Perry knows a longer one."""

KNOWN_LENGTH: Final = 8
"""Characters that a known secret has at least; twice as many where none is a digit: it may be an innocent word."""

_EDGE = r"(?<![A-Za-z0-9_])"

_START = r"(?<![A-Za-z0-9_-])"
"""Where what follows has no bound: no part of it may be a beginning again, or each would look through all the rest."""


class _Shape(msgspec.Struct, frozen=True):
    """The group ``keep`` stays; all else that is found is masked."""

    literals: tuple[str, ...]
    pattern: re.Pattern[str]


def _token(keep: str, rest: str, *literals: str) -> _Shape:
    return _Shape(literals or (keep,), re.compile(f"{_EDGE}(?P<keep>{keep}){rest}"))


SHAPES: Final[Sequence[_Shape]] = (
    # OpenAI, Anthropic and who does likewise. A digit tells a key from a long name with dashes.
    _Shape(("sk-",), re.compile(_START + r"(?P<keep>sk-)(?=[A-Za-z_-]{0,80}[0-9])[A-Za-z0-9_-]{20,}")),
    _token("gh[pousr]_", r"[A-Za-z0-9]{36,255}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token("github_pat_", r"[A-Za-z0-9_]{22,255}"),
    _token("gl(?:pat|dt|rt|cbt|ptt|agent)-", r"[A-Za-z0-9_.-]{20,}",
           "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glagent-"),
    _token("xox[a-z]-", r"[A-Za-z0-9-]{10,}", "xox"),
    _token("xapp-", r"[A-Za-z0-9-]{20,}"),
    _token("(?:AKIA|ASIA)", r"[A-Z0-9]{16}(?![A-Za-z0-9])", "AKIA", "ASIA"),
    _Shape(
        ("secret_access_key", "SECRET_ACCESS_KEY", "ecretAccessKey"),
        re.compile(r"(?P<keep>(?i:secret_?access_?key)\W{1,8})[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"),
    ),
    _token("AIza", r"[A-Za-z0-9_-]{35}"),
    _token(r"ya29\.", r"[A-Za-z0-9_-]{20,}", "ya29."),
    _token("hf_", r"[A-Za-z0-9]{30,}"),
    _token("npm_", r"[A-Za-z0-9]{36}"),
    _token("pypi-", r"[A-Za-z0-9_-]{50,}"),
    _token("[rs]k_live_", r"[A-Za-z0-9]{16,}", "k_live_"),
    _token("(?:gsk_|xai-)", r"[A-Za-z0-9]{40,}", "gsk_", "xai-"),
    _token("tskey-", r"[a-z]{2,16}-[A-Za-z0-9-]{10,}"),
    _token(r"SG\.", r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", "SG."),
    # A JSON Web Token: header and claims are JSON objects, whose base64 begins so.
    _Shape(
        ("eyJ",), re.compile(_START + r"(?P<keep>eyJ)[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")
    ),
    _Shape(
        ("PRIVATE KEY",),
        re.compile(
            r"(?P<keep>-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)"
            r"(?:(?!-----BEGIN ).)*?(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\Z|(?=-----BEGIN ))",
            re.DOTALL,
        ),
    ),
    _Shape(
        ("earer ", "EARER "),
        re.compile(r"(?P<keep>(?i:bearer) +)(?:(?=[A-Za-z._~+/-]{0,80}[0-9])[A-Za-z0-9._~+/-]{16,}=*)"),
    ),
    _Shape(
        ("uthorization", "UTHORIZATION"),
        re.compile(r"(?P<keep>(?i:authorization)[\"'\\]{0,3}\s{0,4}[:=]\s{0,4}[\"'\\]{0,3}(?i:bearer|basic|token) +)"
                   r"(?!\[masked\])[^\s\"'\\,;]{6,}"),
    ),
)  # fmt: skip


LITERALS: Final = frozenset(literal for shape in SHAPES for literal in shape.literals)


class Mask:
    """``known`` are values of secrets, which are masked wherever they stand."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        # What is no UTF-8 is in no text that comes here.
        texts = (value.encode("utf-8", "replace").decode() for value in known)
        pieces = {piece.strip() for text in texts for piece in (text, *text.splitlines())}
        # The longest first: one may contain another.
        self._known = sorted(filter(_is_known, pieces), key=len, reverse=True)
        self._signs = ahocorasick_rs.AhoCorasick({*self._known, *LITERALS}, store_patterns=True)
        self.reach = max([LONGEST, *(len(value) for value in self._known if "\n" not in value)])
        """Characters of the longest secret; of one of several lines, each is masked by itself."""

    def __call__(self, text: str) -> str:
        """The text without its secrets."""
        # Overlapping: a value that is known may begin like a token.
        signs = set(self._signs.find_matches_as_strings(text, overlapping=True))
        if not signs:
            return text
        for value in self._known:
            if value in signs:
                text = text.replace(value, MASKED)
        for shape in SHAPES:
            if not signs.isdisjoint(shape.literals):
                text = shape.pattern.sub(_keep, text)
        return text

    def beginning(self, text: str) -> str:
        """Of a text whose end is not there: what can be told without it. The end of what is there is left out, since
        it may be the beginning of a secret that nothing tells from other words."""
        # What is masked may be longer than what it stands for, and never twice as long.
        return self(text)[: -2 * self.reach]


def _is_known(value: str) -> bool:
    return len(value) >= (KNOWN_LENGTH if any(map(str.isdigit, value)) else 2 * KNOWN_LENGTH)


def _keep(match: re.Match[str]) -> str:
    return match["keep"] + MASKED
