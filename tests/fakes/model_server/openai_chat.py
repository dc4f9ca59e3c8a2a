"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat."""

import json
import time
from collections.abc import Iterator
from typing import Any

from .script import Answer, Asked, Call, Say, Think, Wait
from .wire import USAGE_IN, Event, identifier, is_human, pieces, usage_of


def asked(body: dict[str, Any]) -> Asked:
    prompt, answered = "", 0
    for message in body.get("messages", []):
        content = message.get("content") or ""
        if message["role"] == "tool":
            answered += 1
        elif message["role"] == "user":
            texts = [content] if isinstance(content, str) else [each.get("text", "") for each in content]
            if said := [text for text in texts if is_human(text)]:
                prompt, answered = said[-1], 0
    tools = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in body.get("tools") or []}
    return Asked(prompt, answered, tools, bool(body.get("stream")), body.get("model", "fake-1"))


def whole(question: Asked, answer: Answer) -> dict[str, Any]:
    calls = [_call(part) for part in answer if isinstance(part, Call)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(p.text for p in answer if isinstance(p, Say))}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": _finish(answer)}
    return _head(question, "chat.completion") | {"choices": [choice], "usage": _usage(answer)}


def streamed(question: Asked, answer: Answer) -> Iterator[Event]:
    head = _head(question, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> Event:
        return None, head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    calls = 0
    for part in answer:
        match part:
            case Wait():
                yield part
            case Say(text):
                for each in pieces(text):
                    yield chunk({"content": each})
            case Think(text):
                for each in pieces(text):
                    yield chunk({"reasoning_content": each})
            case Call():
                yield chunk({"tool_calls": [{"index": calls} | _call(part)]})
                calls += 1
    yield chunk({}, _finish(answer))
    yield None, head | {"choices": [], "usage": _usage(answer)}
    yield None, "[DONE]"


def _head(question: Asked, kind: str) -> dict[str, Any]:
    return {"id": identifier("chatcmpl"), "object": kind, "created": int(time.time()), "model": question.model}


def _call(part: Call) -> dict[str, Any]:
    function = {"name": part.name, "arguments": json.dumps(part.input)}
    return {"id": identifier("call"), "type": "function", "function": function}


def _finish(answer: Answer) -> str:
    return "tool_calls" if any(isinstance(part, Call) for part in answer) else "stop"


def _usage(answer: Answer) -> dict[str, int]:
    count = usage_of(answer)
    return {"prompt_tokens": USAGE_IN, "completion_tokens": count, "total_tokens": USAGE_IN + count}
