"""The wake door over HTTP, and ``perry wake``: from what prompts have had until now to the gateway."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from tests.fakes.surface import TOKEN, Surface
from tests.fakes.wake_gateway import Gateway
from tests.waiting import until

PERRY = str(Path(sys.executable).with_name("perry"))


@pytest.fixture
async def agent(tmp_path: Path, gateway: Gateway) -> AsyncIterator[str]:
    """Where a control plane answers whose gateway is ours."""
    token = tmp_path / "gateway-token"
    token.write_text(gateway.token)
    token.chmod(0o600)
    hooks = {"gateways": [{"name": "home", "url": gateway.url, "tokenFile": "gateway-token"}]}
    (tmp_path / "config.json").write_text(json.dumps({"hooks": hooks}))
    surface = Surface(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(surface.services.wakes.run)
        async with surface.served(grace=1) as port:
            yield f"http://127.0.0.1:{port}"


async def curl(agent: str, *arguments: str) -> tuple[int, str]:
    done = await anyio.run_process(["curl", "-sS", "-w", "\n%{http_code}", *arguments, f"{agent}/hooks/wake"])
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), body


@pytest.mark.parametrize("typed", [["-H", "Content-Type: application/json"], [], ["-H", "Content-Type:"]])
async def test_what_people_have_put_into_prompts_works(agent: str, gateway: Gateway, typed: list[str]) -> None:
    body = '{"text":"Done: all \'green\' $(now) ✅","mode":"now"}'
    status, said = await curl(agent, "-X", "POST", *typed, "-H", f"Authorization: Bearer {TOKEN}", "-d", body)
    answer = json.loads(said)
    assert (status, answer) == (200, {"ok": True, "mode": "now", "id": answer["id"]})
    await until(lambda: gateway.accepted)
    assert gateway.told == [f"[Perry {answer['id']}] Done: all 'green' $(now) ✅"]


async def test_what_is_wrong_is_said_as_gateways_say_it(agent: str, gateway: Gateway, tmp_path: Path) -> None:
    authorised = ["-H", f"Authorization: Bearer {TOKEN}"]
    big = tmp_path / "big"
    big.write_text(json.dumps({"text": "x" * (300 << 10)}))
    assert await curl(agent, "-X", "POST", *authorised, "-d", "{}") == (400, '{"ok":false,"error":"text required"}')
    assert (await curl(agent, "-X", "POST", "-d", '{"text":"x"}'))[0] == 401
    assert (await curl(agent, "-X", "POST", "-H", "Authorization: Bearer wrong", "-d", '{"text":"x"}'))[0] == 401
    assert (await curl(agent, *authorised))[0] == 405
    assert (await curl(agent, "-X", "POST", *authorised, "-d", f"@{big}"))[0] == 413
    long = json.dumps({"text": "x" * (65 << 10)})
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answer = await client.post(f"{agent}/hooks/wake", content=long)
        assert answer.status_code == 413 and answer.json()["ok"] is False
    assert not gateway.heard


async def test_perry_wake_and_what_became_of_it(agent: str, gateway: Gateway, tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "PERRY_URL": agent,
        "PERRY_TOKEN": TOKEN,
        "PERRY_CONFIG_DIR": str(tmp_path / "client"),
    }

    async def perry(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return await anyio.run_process([PERRY, *arguments], input=stdin, env=environ, check=False)

    id_ = (await perry("wake", "Done: 'it' \"works\"\nreally")).stdout.decode().strip()
    await until(lambda: gateway.accepted)
    assert gateway.told == [f"[Perry {id_}] Done: 'it' \"works\"\nreally"]
    await perry("wake", "-", "--mode", "next-heartbeat", stdin=b"from a pipe")
    await until(lambda: len(gateway.accepted) == 2)
    assert gateway.accepted[1].json["mode"] == "next-heartbeat"
    assert "delivered" in (await perry("wakes", "list")).stdout.decode()
    shown = (await perry("wakes", "show", id_)).stdout.decode()
    assert "home from the agent's machine: 200" in shown
    assert "home was woken from the agent's machine" in (await perry("wakes", "test")).stderr.decode()
    gateway.token = "another"
    refused = await perry("wakes", "test")
    assert refused.returncode == 1 and "does not take the token" in refused.stderr.decode()
    assert (await perry("wakes", "retry", "--all")).returncode == 0
    assert (await perry("wakes", "show", "w-none")).returncode == 4
    assert (await perry("wake", " ")).returncode == 2
