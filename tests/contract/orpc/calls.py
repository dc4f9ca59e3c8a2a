"""One call of each procedure of the API, in an order that makes sense. A new procedure needs a line here.

``gives`` are fields of the output that must have these values; ``code`` is the error where the fakes give nothing more.
"""

from typing import Any

import msgspec


class Call(msgspec.Struct, frozen=True):
    """What is called, with what, and what comes of it."""

    procedure: str
    input: dict[str, Any] | None = None
    gives: dict[str, Any] = {}
    code: str | None = None


CALLS = (
    Call("workspaces.create", {"name": "alpha"}, {"name": "alpha", "status": "running"}),
    Call("workspaces.start", {"name": "alpha", "wait": True}, {"name": "alpha", "ports": {"ssh": 22001}}),
    Call("workspaces.get", {"name": "alpha"}, {"name": "alpha", "docker": True}),
    Call("workspaces.list"),
    Call("workspaces.exec", {"name": "alpha", "command": ["true"]}, {"exitCode": 0, "truncated": False}),
    Call("workspaces.logs", {"name": "alpha", "tail": 5}),
    Call("workspaces.clone", {"name": "alpha", "new": "copy"}, {"name": "copy", "status": "running"}),
    Call("workspaces.delete", {"name": "copy", "force": True}),
    Call("workspaces.sync", {"name": "alpha"}, {"name": "alpha", "problems": []}),
    Call("workspaces.restart", {"name": "alpha"}, {"status": "running"}),
    Call("workspaces.ports", {"name": "alpha"}, {"items": []}),
    Call("workspaces.stop", {"name": "alpha"}, {"status": "stopped"}),
    Call("workspaces.delete", {"name": "alpha"}, code="CONFLICT"),
    Call("workspaces.delete", {"name": "alpha", "force": True}),
    Call("workspaces.get", {"name": "alpha"}, code="NOT_FOUND"),
    Call("sessions.list", {"agent": "codex"}, {"items": []}),
    Call("sessions.search", {"query": "fence"}, {"items": []}),
    Call("sessions.get", {"workspace": "alpha", "agent": "claude", "sessionId": "s"}, code="NOT_FOUND"),
    Call("sessions.messages", {"workspace": "alpha", "agent": "claude", "sessionId": "s"}, code="NOT_FOUND"),
    Call("sessions.rename", {"workspace": "a", "agent": "claude", "sessionId": "s", "title": "t"}, code="NOT_FOUND"),
    Call("sessions.delete", {"workspace": "alpha", "agent": "claude", "sessionId": "s"}, code="NOT_FOUND"),
    Call("tailnet.status", None, {"provider": "fake", "ready": True}),
    Call("tailnet.join", None, {"controlUrl": "http://192.0.2.1:7390"}),
    Call("tailnet.leave"),
    Call("config.get"),
    Call("config.set", {"key": "ssh.bind", "value": "127.0.0.2"}, {"key": "ssh.bind", "value": "127.0.0.2"}),
    Call("config.unset", {"key": "ssh.bind"}, {"key": "ssh.bind", "value": "127.0.0.1"}),
    Call("credentials.list", None, {"problems": []}),
    Call("secrets.set", {"name": "TOKEN", "value": "hush"}, {"items": ["TOKEN"]}),
    Call("secrets.list", None, {"items": ["TOKEN"]}),
    Call("secrets.remove", {"name": "TOKEN"}, {"items": []}),
    Call("tasks.dispatch", {"workspace": "nowhere", "task": "Fix it"}, code="NOT_FOUND"),
    Call("tasks.list", {}, {"items": []}),
    Call("tasks.get", {"id": "t-000000000000"}, code="NOT_FOUND"),
    Call("tasks.logs", {"id": "t-000000000000"}, code="NOT_FOUND"),
    Call("tasks.wait", {"ids": ["t-000000000000"]}, code="NOT_FOUND"),
    Call("tasks.cancel", {"id": "t-000000000000"}, code="NOT_FOUND"),
    Call("tasks.check", {"id": "t-000000000000"}, code="NOT_FOUND"),
    Call("tasks.check", {}, code="BAD_REQUEST"),
    Call("tasks.result", {"id": "t-000000000000"}, code="NOT_FOUND"),
    Call("batches.plan", {"items": [{"item": "1"}], "name": "pr-{}", "task": "Review {}"}),
    Call("batches.start", {"items": []}, code="BAD_REQUEST"),
    Call("batches.list", {}, {"items": []}),
    Call("batches.get", {"id": "b-000000000000"}, code="NOT_FOUND"),
    Call("batches.wait", {"id": "b-000000000000"}, code="NOT_FOUND"),
    Call("batches.cancel", {"id": "b-000000000000"}, code="NOT_FOUND"),
    Call("batches.result", {"id": "b-000000000000", "number": 1}, code="NOT_FOUND"),
    Call("wakes.list", {}, {"items": [], "gateways": []}),
    Call("wakes.show", {"id": "w-none"}, code="NOT_FOUND"),
    Call("wakes.retry", {}, {"count": 0}),
    Call("wakes.test", {}, code="PRECONDITION_FAILED"),
    Call("cron.add", {"name": "fallback", "at": "20m", "message": "Look."}, {"name": "fallback", "action": "wake"}),
    Call("cron.add", {"every": "1s", "message": "Look."}, code="BAD_REQUEST"),
    Call("cron.list", {}),
    Call("cron.run", {"job": "fallback"}, {"job": "fallback", "byHand": True}),
    Call("cron.history", {"job": "fallback"}, {"more": False}),
    Call("cron.remove", {"job": "fallback"}, {"name": "fallback"}),
    Call("cron.remove", {"job": "fallback"}, code="NOT_FOUND"),
    Call("auth.whoami", None, {"kind": "token"}),
    Call("agent.info", None, {"workspacesCount": 0}),
    # The last, as it ends what is called.
    Call("agent.kill", None, {"ok": True}),
)
