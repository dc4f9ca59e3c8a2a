"""Gemini's generateContent and streamGenerateContent: https://ai.google.dev/api/generate-content."""

from collections.abc import Iterator
from typing import Any

from .script import Answer, Asked, Call, Say, Think, Wait
from .wire import USAGE_IN, Event, identifier, is_human, pieces, usage_of


def asked(body: dict[str, Any]) -> Asked:
    prompt, answered = "", 0
    for content in body.get("contents", []):
        if content.get("role", "user") != "user":
            continue
        parts = content.get("parts", [])
        results = sum("functionResponse" in part for part in parts)
        said = [part["text"] for part in parts if is_human(part.get("text", ""))]
        if results:
            answered += results
        elif said:
            prompt, answered = said[-1], 0
    tools = {
        function["name"]: function.get("parametersJsonSchema") or function.get("parameters") or {}
        for tool in body.get("tools") or []
        for function in tool.get("functionDeclarations", [])
    }
    return Asked(prompt, answered, tools)


def whole(question: Asked, answer: Answer) -> dict[str, Any]:
    parts = [_part(part) for part in answer if not isinstance(part, Wait)]
    return _answer(question, parts, answer)


def streamed(question: Asked, answer: Answer) -> Iterator[Event]:
    for part in answer:
        match part:
            case Wait():
                yield part
            case Say(text):
                for each in pieces(text):
                    yield None, _answer(question, [{"text": each}])
            case _:
                yield None, _answer(question, [_part(part)])
    yield None, _answer(question, [{"text": ""}], answer)


def _answer(question: Asked, parts: list[dict[str, Any]], ended: Answer | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
    said: dict[str, Any] = {"candidates": [candidate], "modelVersion": question.model, "responseId": identifier("r")}
    if ended is not None:
        candidate["finishReason"] = "STOP"
        count = usage_of(ended)
        said["usageMetadata"] = {
            "promptTokenCount": USAGE_IN,
            "candidatesTokenCount": count,
            "totalTokenCount": USAGE_IN + count,
        }
    return said


def _part(part: Any) -> dict[str, Any]:
    match part:
        case Call(name, given):
            return {"functionCall": {"id": identifier("call"), "name": name, "args": given}}
        case Think(text):
            return {"text": text, "thought": True}
    return {"text": part.text}
