"""OpenAI's responses: https://platform.openai.com/docs/api-reference/responses-streaming.

A tool ``write`` of the namespace ``mcp__notes`` is ``mcp__notes.write`` here.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

from .script import Answer, Asked, Call, Say, Think, Wait
from .wire import USAGE_IN, Event, identifier, is_human, pieces, usage_of


def asked(body: dict[str, Any]) -> Asked:
    prompt, answered = "", 0
    given = body.get("input", [])
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        if item.get("type", "").endswith("_output"):
            answered += 1
        elif item.get("role") == "user":
            content = item.get("content", "")
            texts = [content] if isinstance(content, str) else [each.get("text", "") for each in content]
            if said := [text for text in texts if is_human(text)]:
                prompt, answered = said[-1], 0
    tools: dict[str, Any] = {}
    for tool in body.get("tools") or []:
        if tool.get("type") == "namespace":
            tools |= {f"{tool['name']}.{each['name']}": each.get("parameters", {}) for each in tool["tools"]}
        elif "name" in tool:
            tools[tool["name"]] = tool.get("parameters", {})
    return Asked(prompt, answered, tools, bool(body.get("stream")), body.get("model", "fake-1"))


def whole(question: Asked, answer: Answer) -> dict[str, Any]:
    items = [_item(part) for part in answer if not isinstance(part, Wait)]
    return _response(question, "completed", items, answer)


def streamed(question: Asked, answer: Answer) -> Iterator[Event]:
    for number, event in enumerate(_events(question, answer)):
        if isinstance(event, Wait) or isinstance(event[1], str):
            yield event
        else:
            yield event[0], event[1] | {"sequence_number": number}


def _events(question: Asked, answer: Answer) -> Iterator[Event]:
    begun = _response(question, "in_progress", [], [])
    yield _event("response.created", response=begun)
    items: list[dict[str, Any]] = []
    for part in answer:
        if isinstance(part, Wait):
            yield part
            continue
        item = _item(part)
        at = {"output_index": len(items), "item_id": item["id"]}
        items.append(item)
        index = at["output_index"]
        match part:
            case Say(text):
                yield _event("response.output_item.added", output_index=index, item=item | {"content": []})
                empty = item["content"][0] | {"text": ""}
                yield _event("response.content_part.added", content_index=0, part=empty, **at)
                for each in pieces(text):
                    yield _event("response.output_text.delta", content_index=0, delta=each, **at)
                yield _event("response.output_text.done", content_index=0, text=text, **at)
                yield _event("response.content_part.done", content_index=0, part=item["content"][0], **at)
            case Call():
                yield _event("response.output_item.added", output_index=index, item=item | {"arguments": ""})
                yield _event("response.function_call_arguments.delta", delta=item["arguments"], **at)
                yield _event("response.function_call_arguments.done", arguments=item["arguments"], **at)
            case _:
                yield _event("response.output_item.added", output_index=index, item=item | {"summary": []})
        yield _event("response.output_item.done", output_index=index, item=item)
    done = _response(question, "completed", items, answer) | {"id": begun["id"]}
    yield _event("response.completed", response=done)


def _response(question: Asked, status: str, items: list[dict[str, Any]], answer: Answer) -> dict[str, Any]:
    count = usage_of(answer)
    usage = {
        "input_tokens": USAGE_IN,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": count,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": USAGE_IN + count,
    }
    return {
        "id": identifier("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": question.model,
        "output": items,
        "usage": usage if status == "completed" else None,
    }


def _item(part: Any) -> dict[str, Any]:
    match part:
        case Call(name, given):
            namespace, _, plain = name.rpartition(".")
            call = {
                "type": "function_call",
                "id": identifier("fc"),
                "call_id": identifier("call"),
                "name": plain,
                "arguments": json.dumps(given),
                "status": "completed",
            }
            return call | ({"namespace": namespace} if namespace else {})
        case Think(text):
            return {
                "type": "reasoning",
                "id": identifier("rs"),
                "summary": [{"type": "summary_text", "text": text}],
                "encrypted_content": None,
            }
    content = [{"type": "output_text", "text": part.text, "annotations": []}]
    return {
        "type": "message",
        "id": identifier("msg"),
        "role": "assistant",
        "status": "completed",
        "content": content,
    }


def _event(kind: str, **fields: Any) -> Event:
    return kind, {"type": kind} | fields
