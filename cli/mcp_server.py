"""``perry mcp``: an MCP server on standard input and output, in front of a control plane.

Everything is asked of the control plane at each call, with the same rights as the person's other commands.
"""

import functools
from collections.abc import Mapping
from typing import Any, Final

import anyio
import anyio.to_thread
import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from cli.client import READ_SECONDS, Client
from cli.errors import CliError, Misused
from cli.mcp_tools import INSTRUCTIONS, TOOLS, Tool
from protocol.version import VERSION

TEXT_LIMIT: Final = 20_000
"""Characters of one text that an assistant is given; of a longer one its beginning and its end."""

_BY_NAME: Final = {tool.name: tool for tool in TOOLS}


async def serve() -> None:
    """Until standard input ends."""
    made = server()
    async with stdio_server() as (read, write):
        await made.run(read, write, made.create_initialization_options())


def server() -> Server[Any]:
    """The server; how it is spoken to is its caller's."""
    return Server(
        "perry", version=VERSION, instructions=INSTRUCTIONS, on_list_tools=_list_tools, on_call_tool=_call_tool
    )


async def _list_tools(_: ServerRequestContext[Any], __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[_shown(tool) for tool in TOOLS])


async def _call_tool(_: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
    try:
        tool, arguments = _wanted(params.name, params.arguments or {})
        call = functools.partial(
            Client().call, tool.procedure, object, arguments, seconds=None if tool.long else READ_SECONDS
        )
        # An answer that nobody waits for any more is not waited for.
        answer = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except CliError as exc:
        return _result({"error": exc.message} | ({"data": exc.data} if exc.data is not None else {}), failed=True)
    return _result(answer)


def _wanted(name: str, arguments: Mapping[str, Any]) -> tuple[Tool, Mapping[str, Any]]:
    if (tool := _BY_NAME.get(name)) is None:
        raise Misused(f"There is no tool {name!r}; there are {', '.join(_BY_NAME)}.")
    if refused := [each for each in tool.without if each in arguments]:
        raise Misused(f"{name} takes no {refused[0]!r}; that is for a person to do, with the command perry.")
    return tool, arguments


def _shown(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.says,
        input_schema=tool.schema(),
        annotations=types.ToolAnnotations(
            read_only_hint=tool.reads, destructive_hint=tool.destroys, open_world_hint=False
        ),
    )


def _result(value: object, *, failed: bool = False) -> types.CallToolResult:
    text = msgspec.json.encode(shortened(value)).decode()
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)


def shortened(value: Any) -> Any:
    """JSON with no text longer than an assistant can use."""
    if isinstance(value, str) and len(value) > TEXT_LIMIT:
        half = TEXT_LIMIT // 2
        return f"{value[:half]}\n… ({len(value) - 2 * half} characters left out) …\n{value[-half:]}"
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each) for each in value]
    return value
