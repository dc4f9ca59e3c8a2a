"""What a hook's words mean. Pure.

Claude Code's hooks (2.1): ``Stop`` fires while a subagent or a command in the background is still at it, and again at
the true end; ``StopFailure`` where the provider failed; ``Notification`` for prompts, and after a minute without any.
Codex (0.169): ``notify`` with ``agent-turn-complete``.
"""

from typing import Any, Final

import msgspec

TEXT_LIMIT: Final = 4_000


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """As :class:`protocol.worker.AgentSignal` has it."""

    session_id: str
    what: str
    text: str


def meaning(agent: str, said: Any) -> Meaning | None:
    """None where it means nothing to us, or is not what that agent says."""
    if not isinstance(said, dict):
        return None
    found = {"claude": _claude, "codex": _codex}.get(agent, _nothing)(said)
    return found if found is not None and 0 < len(found.session_id) <= 256 else None


def _nothing(said: dict[str, Any]) -> Meaning | None:
    return None


def _claude(said: dict[str, Any]) -> Meaning | None:
    session = _text(said.get("session_id"))
    match said.get("hook_event_name"):
        case "Stop" if not said.get("background_tasks") and not said.get("session_crons"):
            return Meaning(session_id=session, what="done", text=_text(said.get("last_assistant_message")))
        case "StopFailure":
            reason = said.get("last_assistant_message") or said.get("error")
            return Meaning(session_id=session, what="failed", text=_text(reason))
        case "Notification" if said.get("notification_type") != "idle_prompt":
            return Meaning(session_id=session, what="waiting", text=_text(said.get("message")))
    return None


def _codex(said: dict[str, Any]) -> Meaning | None:
    if said.get("type") != "agent-turn-complete":
        return None
    text = _text(said.get("last-assistant-message"))
    return Meaning(session_id=_text(said.get("thread-id")), what="done", text=text)


def _text(value: Any) -> str:
    return value[:TEXT_LIMIT] if isinstance(value, str) else ""
