"""Anthropic's messages: https://docs.anthropic.com/en/api/messages-streaming."""

import json
from collections.abc import Iterator
from typing import Any

from .script import Answer, Asked, Call, Say, Think, Wait
from .wire import USAGE_IN, Event, identifier, is_human, pieces, usage_of


def asked(body: dict[str, Any]) -> Asked:
    prompt, answered = "", 0
    for message in body.get("messages", []):
        content = message.get("content", "")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if message.get("role") != "user":
            continue
        results = sum(block.get("type") == "tool_result" for block in blocks)
        said = [block["text"] for block in blocks if block.get("type") == "text" and is_human(block["text"])]
        if results:
            answered += results
        elif said:
            prompt, answered = said[-1], 0
    tools = {tool["name"]: tool.get("input_schema", {}) for tool in body.get("tools") or []}
    return Asked(prompt, answered, tools, bool(body.get("stream")), body.get("model", "fake-1"))


def whole(question: Asked, answer: Answer) -> dict[str, Any]:
    content = [_block(part) for part in answer if not isinstance(part, Wait)]
    return _message(question) | {
        "content": content,
        "stop_reason": _stop(answer),
        "usage": {"input_tokens": USAGE_IN, "output_tokens": usage_of(answer)},
    }


def streamed(question: Asked, answer: Answer) -> Iterator[Event]:
    yield _event("message_start", message=_message(question))
    index = 0
    for part in answer:
        if isinstance(part, Wait):
            yield part
            continue
        block = _block(part)
        match part:
            case Say(text):
                empty, deltas = block | {"text": ""}, [{"type": "text_delta", "text": each} for each in pieces(text)]
            case Think(text):
                empty = block | {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": each} for each in pieces(text)]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case _:
                empty = block | {"input": {}}
                deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        yield _event("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
        index += 1
    yield _event(
        "message_delta",
        delta={"stop_reason": _stop(answer), "stop_sequence": None},
        usage={"output_tokens": usage_of(answer)},
    )
    yield _event("message_stop")


def _message(question: Asked) -> dict[str, Any]:
    return {
        "id": identifier("msg"),
        "type": "message",
        "role": "assistant",
        "model": question.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": USAGE_IN, "output_tokens": 1},
    }


def _block(part: Any) -> dict[str, Any]:
    match part:
        case Think(text):
            return {"type": "thinking", "thinking": text, "signature": "c2lnbmVk"}
        case Call(name, given):
            return {"type": "tool_use", "id": identifier("toolu"), "name": name, "input": given}
    return {"type": "text", "text": part.text}


def _stop(answer: Answer) -> str:
    return "tool_use" if any(isinstance(part, Call) for part in answer) else "end_turn"


def _event(kind: str, **fields: Any) -> Event:
    return kind, {"type": kind} | fields
