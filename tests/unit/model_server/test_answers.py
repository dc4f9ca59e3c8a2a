"""The fake model server, in each dialect: what it is told in a prompt is what it answers, and it remembers requests."""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.fakes.model_server import ModelServer

PROMPT = "Look [[think: Where?]] [[run: ls]] [[say: There are three.]]"
SHELL = {"type": "object", "properties": {"command": {"type": "string"}, "description": {}}, "required": ["command"]}
CHAT_TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": SHELL}}]


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer(scripts={"^tidy": "[[say: It is tidy.]]"}) as server:
        yield server


def ask(model: ModelServer, path: str, body: Mapping[str, Any]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", model.port, timeout=20)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def events(answer: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "fake-1", "messages": list(messages), "tools": CHAT_TOOLS, **more}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_chat_completions(model: ModelServer) -> None:
    first = json.loads(ask(model, "/v1/chat/completions", chat(user(PROMPT)))[1])["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    call = first["message"]["tool_calls"][0]
    assert call["function"] == {"name": "bash", "arguments": '{"command": "ls"}'}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "a b c"}
    status, streamed = ask(model, "/v1/chat/completions", chat(user(PROMPT), first["message"], result, stream=True))
    chunks = [chunk["choices"][0]["delta"].get("content") or "" for chunk in events(streamed) if chunk["choices"]]
    assert (status, "".join(chunks)) == (200, "There are three.")
    assert streamed.endswith("data: [DONE]\n\n")
    assert [(each["prompt"], each["answered"]) for each in model.requests()] == [(PROMPT, 0), (PROMPT, 1)]
    assert model.requests()[1]["body"]["messages"][2] == result


def test_responses(model: ModelServer) -> None:
    tools = [{"type": "function", "name": "shell", "parameters": {"properties": {"command": {"type": "array"}}}}]
    asked = {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}
    body = {"model": "fake-1", "input": [asked], "tools": tools, "stream": True}
    told = events(ask(model, "/v1/responses", body)[1])
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    thought, call = told[-1]["response"]["output"]
    assert thought["summary"][0]["text"] == "Where?"
    assert json.loads(call["arguments"]) == {"command": ["bash", "-lc", "ls"]}
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "a b c"}
    context = {"role": "user", "content": [{"type": "input_text", "text": "<environment_context>…"}]}
    body |= {"input": [context, asked, call, result], "stream": False}
    (message,) = json.loads(ask(model, "/v1/responses", body)[1])["output"]
    assert message["content"][0]["text"] == "There are three."


def test_responses_with_a_tool_of_a_namespace(model: ModelServer) -> None:
    tools = [{"type": "namespace", "name": "mcp__notes", "tools": [{"type": "function", "name": "write"}]}]
    body = {"model": "fake-1", "input": 'Note it [[tool: mcp__notes.write {"line": "x"}]]', "tools": tools}
    (call,) = json.loads(ask(model, "/v1/responses", body)[1])["output"]
    assert (call["namespace"], call["name"], call["arguments"]) == ("mcp__notes", "write", '{"line": "x"}')
    assert model.requests()[0]["tools"] == ["mcp__notes.write"]


def test_messages(model: ModelServer) -> None:
    tools = [{"name": "Bash", "input_schema": SHELL}]
    reminder = {"type": "text", "text": "<system-reminder>Be good.</system-reminder>"}
    asked = {"role": "user", "content": [reminder, {"type": "text", "text": PROMPT}]}
    body = {"model": "claude-fake-1", "messages": [asked], "tools": tools, "stream": True}
    told = events(ask(model, "/v1/messages?beta=true", body)[1])
    assert (told[0]["type"], told[-1]["type"]) == ("message_start", "message_stop")
    assert told[-2]["delta"]["stop_reason"] == "tool_use"
    blocks = [event["content_block"]["type"] for event in told if event["type"] == "content_block_start"]
    assert blocks == ["thinking", "tool_use"]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a b c"}
    body |= {"messages": [asked, {"role": "assistant", "content": []}, {"role": "user", "content": [result, reminder]}]}
    told = events(ask(model, "/v1/messages", body)[1])
    text = "".join(event["delta"].get("text", "") for event in told if event["type"] == "content_block_delta")
    assert text == "There are three."


def test_gemini(model: ModelServer) -> None:
    tools = [{"functionDeclarations": [{"name": "run_shell_command", "parametersJsonSchema": SHELL}]}]
    asked = {"role": "user", "parts": [{"text": PROMPT}]}
    body = {"contents": [asked], "tools": tools}
    path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    parts = [event["candidates"][0]["content"]["parts"][0] for event in events(ask(model, path, body)[1])]
    assert parts[0] == {"text": "Where?", "thought": True}
    assert parts[1]["functionCall"]["args"] == {"command": "ls"}
    result = {"role": "user", "parts": [{"functionResponse": {"name": "run_shell_command", "response": {}}}]}
    whole = json.loads(ask(model, path.partition(":")[0] + ":generateContent", body | {"contents": [asked, result]})[1])
    assert whole["candidates"][0]["content"]["parts"] == [{"text": "There are three."}]
    assert whole["usageMetadata"]["candidatesTokenCount"] == 3


def said(model: ModelServer, prompt: str, **more: Any) -> str:
    body = chat(user(prompt)) | more
    text: str = json.loads(ask(model, "/v1/chat/completions", body)[1])["choices"][0]["message"]["content"]
    return text


def test_prompts_without_a_script_of_their_own(model: ModelServer) -> None:
    assert said(model, "tidy up") == "It is tidy."
    assert said(model, "hello") == "You said: hello"


def test_a_request_without_tools_asks_for_a_title(model: ModelServer) -> None:
    assert said(model, "Look at it [[run: ls]]", tools=None) == "Look at it"
    assert said(model, "Look at it [[title: A look]]", tools=None) == "A look"


def test_it_fails_as_often_as_it_is_told(model: ModelServer) -> None:
    body = chat(user("[[fail: 429 2]] [[say: Now.]]"))
    assert [ask(model, "/v1/chat/completions", body)[0] for _ in range(4)] == [429, 429, 200, 200]
    assert ask(model, "/v1/chat/completions", chat(user("[[fail: 500]]")))[0] == 500


def test_a_tool_that_the_agent_has_not_is_said(model: ModelServer) -> None:
    status, answer = ask(model, "/v1/chat/completions", chat(user("[[ask: Shall I?]]")))
    assert status == 400
    assert "none of AskUserQuestion" in answer


def test_a_subagents_prompt_keeps_its_own_script(model: ModelServer) -> None:
    prompt = '[[tool: task {"prompt": "Count [[run: wc -l x]] [[say: 7]]"}]] [[say: Seven.]]'
    tools = [{"type": "function", "function": {"name": "task"}}]
    answer = json.loads(ask(model, "/v1/chat/completions", chat(user(prompt), tools=tools))[1])
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["prompt"] == "Count [[run: wc -l x]] [[say: 7]]"
