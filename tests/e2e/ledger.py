"""An MCP server of a person's own: ``write`` adds a line to a file. Runs by itself, with Python's library alone."""

import json
import os
import sys
from typing import Any

TOOL = {
    "name": "write",
    "description": "Writes a line into the ledger.",
    "inputSchema": {"type": "object", "properties": {"line": {"type": "string"}}, "required": ["line"]},
}


def answer(method: str, given: Any) -> dict[str, Any]:
    if method == "initialize":
        about = {"name": "ledger", "version": "1"}
        return {"protocolVersion": given["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        line = given["arguments"]["line"]
        with open(os.path.expanduser("~/ledger.txt"), "a", encoding="utf-8") as file:
            file.write(f"{os.environ['LEDGER_KEY']} {line}\n")
        return {"content": [{"type": "text", "text": f"The ledger has {line!r} now."}]}
    return {}


for text in sys.stdin:
    asked = json.loads(text)
    if "id" in asked:
        reply = {"jsonrpc": "2.0", "id": asked["id"], "result": answer(asked["method"], asked.get("params"))}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
