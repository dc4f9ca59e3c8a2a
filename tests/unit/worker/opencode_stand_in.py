#!/usr/bin/env python3
"""Stands in for the program ``opencode`` where its server has to start in milliseconds; tests/e2e has the real one.

    opencode serve --hostname 127.0.0.1 --port N

As OpenCode 1.18: a password for everything, no answer ever to what comes in the moment in which it begins to listen,
and the status of work by folder. A file ``fails`` in the home makes it end at once, ``busy`` has its session work,
and ``odd`` is what it answers when it is asked about that.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["HOME"])
SECRET = base64.b64encode(f"opencode:{os.environ['OPENCODE_SERVER_PASSWORD']}".encode()).decode()
DEAF_SECONDS = 0.1

began = time.monotonic()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if time.monotonic() - began < DEAF_SECONDS:
        await asyncio.sleep(3600)
    head = await reader.readuntil(b"\r\n\r\n")
    with (HOME / "asked").open("ab") as file:
        file.write(head.partition(b"\r\n")[0] + b"\n")
    path = head.split()[1].decode()
    if f"Basic {SECRET}".encode() not in head:
        answer(writer, 401, b"")
    elif path == "/global/health":
        answer(writer, 200, b'{"healthy":true}')
    elif path.startswith("/experimental/session"):
        session = {"directory": "/home/x y", "time": {"updated": int(time.time() * 1000)}}
        answer(writer, 200, json.dumps([session]).encode())
    elif path == "/session/status?directory=%2Fhome%2Fx%20y":
        status = b'{"ses_1":{"type":"busy"}}' if (HOME / "busy").exists() else b"{}"
        answer(writer, 200, (HOME / "odd").read_bytes() if (HOME / "odd").exists() else status)
    elif path == "/socket":
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.write(b"that was all")
    elif path == "/event":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            writer.write(b"data: tick\n\n")
            await writer.drain()
            await asyncio.sleep(0.02)
    elif path == "/endless":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        sent = 0
        while True:
            writer.write(b"x" * (1 << 16))
            await writer.drain()
            sent += 1 << 16
            (HOME / "sent").write_text(str(sent))
    elif path == "/die":
        os._exit(3)
    elif path == "/child":
        child = subprocess.Popen(["sleep", "3600"])  # noqa: ASYNC220
        answer(writer, 200, str(child.pid).encode())
    else:
        answer(writer, 404, b"")
    await writer.drain()
    writer.close()


def answer(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)))
    writer.write(body)


async def main() -> None:
    with (HOME / "starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if (HOME / "fails").exists():
        sys.exit(7)
    assert sys.argv[1:5] == ["serve", "--hostname", "127.0.0.1", "--port"]
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[5]))
    await server.serve_forever()


asyncio.run(main())
