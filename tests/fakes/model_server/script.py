"""What the model is told to do, as it stands in a prompt: pure.

========================  ==============================================================================================
``[[say: TEXT]]``         says it
``[[think: TEXT]]``       thinks it aloud
``[[run: COMMAND]]``      has the agent run it with its tool for commands; what follows comes after the tool's result
``[[tool: NAME JSON]]``   has the agent use any tool of its own
``[[ask: QUESTION]]``     has the agent ask its person, where it has a tool for that
``[[wait: SECONDS]]``     is silent so long, with the answer begun
``[[fail: STATUS N]]``    refuses N times (each time, without N)
``[[title: TEXT]]``       what it answers where an agent asks for a session's title
========================  ==============================================================================================

A prompt without any is answered with ``You said: …``. Brackets may be nested, so a subagent's prompt may have its own.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

COMMAND_TOOLS = ("bash", "Bash", "exec_command", "shell_command", "shell", "run_shell_command")
QUESTION_TOOLS = ("AskUserQuestion", "question", "request_user_input", "ask_user")
LONGEST_TITLE = 50
_VERB = re.compile(r"\[\[(say|think|run|tool|ask|wait|fail|title):")


@dataclass(frozen=True)
class Asked:
    """A request in any dialect: what a person said last, and how many of its tools' results have come since."""

    prompt: str
    answered: int = 0
    tools: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of each tool's input, by the tool's name."""
    stream: bool = False
    model: str = "fake-1"


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class Think:
    text: str


@dataclass(frozen=True)
class Call:
    name: str
    input: dict[str, Any]


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Fail:
    status: int
    times: int | None


Part = Say | Think | Call | Wait | Fail
Answer = list[Part]


def answer(asked: Asked, scripts: Mapping[str, str] | None = None) -> Answer:
    """The next answer. ``scripts`` has what is done for prompts that match a regular expression and say nothing
    themselves. ValueError for what cannot be done."""
    prompt = asked.prompt
    told = list(_told(prompt))
    if not told:
        told = next((list(_told(does)) for match, does in (scripts or {}).items() if re.search(match, prompt)), [])
    if not asked.tools:
        return [*(_wait_or_fail(verb, text) for verb, text in told if verb == "fail"), Say(_title(prompt, told))]
    answers: list[Answer] = [[]]
    for verb, text in told:
        if verb == "title":
            continue
        part = _part(verb, text, asked.tools)
        answers[-1].append(part)
        if isinstance(part, Call):
            answers.append([])
    if asked.answered < len(answers) and answers[asked.answered]:
        return answers[asked.answered]
    return [Say("Done." if told else f"You said: {prompt}")]


def _title(prompt: str, told: list[tuple[str, str]]) -> str:
    plain = _VERB.split(prompt)[0].strip(' "\n') or "Untitled"
    return next((text for verb, text in told if verb == "title"), plain[:LONGEST_TITLE])


def _part(verb: str, text: str, tools: Mapping[str, Any]) -> Part:
    match verb:
        case "say":
            return Say(text)
        case "think":
            return Think(text)
        case "run":
            name = _first(COMMAND_TOOLS, tools)
            return Call(name, _command(tools[name], text))
        case "ask":
            return Call(_first(QUESTION_TOOLS, tools), _question(text))
        case "tool":
            name, _, given = text.partition(" ")
            return Call(name, json.loads(given or "{}"))
    return _wait_or_fail(verb, text)


def _wait_or_fail(verb: str, text: str) -> Part:
    if verb == "wait":
        return Wait(float(text))
    status, _, times = text.partition(" ")
    return Fail(int(status), int(times) if times else None)


def _first(wanted: tuple[str, ...], tools: Mapping[str, Any]) -> str:
    for name in wanted:
        if name in tools:
            return name
    raise ValueError(f"none of {', '.join(wanted)} is among the agent's tools: {', '.join(tools)}")


def _command(schema: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Input of a tool for commands, as its schema wants it."""
    properties = schema.get("properties", {})
    given: dict[str, Any] = {}
    for name in ("command", "cmd"):
        if name in properties:
            listed = properties[name].get("type") == "array"
            given[name] = ["bash", "-lc", command] if listed else command
    for name in schema.get("required", []):
        given.setdefault(name, f"Runs {command.split()[0]}")
    return given


def _question(text: str) -> dict[str, Any]:
    options = [{"label": "Yes", "description": "Do it"}, {"label": "No", "description": "Leave it"}]
    question = {"id": "q", "question": text, "header": "Question", "options": options, "multiSelect": False}
    return {"questions": [question]}


def _told(prompt: str) -> Iterator[tuple[str, str]]:
    position = 0
    while (found := _VERB.search(prompt, position)) is not None:
        depth, end = 1, found.end()
        while depth and end < len(prompt):
            two = prompt[end : end + 2]
            if two in ("[[", "]]"):
                depth += 1 if two == "[[" else -1
                end += 2
            else:
                end += 1
        yield found.group(1), prompt[found.end() : end - 2 if not depth else end].strip()
        position = end
