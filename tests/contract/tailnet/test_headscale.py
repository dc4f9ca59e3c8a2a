"""What only a person's own headscale has: keys that expire, users of theirs, things that are not ours to change."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.errors import CredentialRefused, NotReady
from tests.contract.tailnet.bench import HeadscaleBench, write_secret

pytestmark = [pytest.mark.anyio, pytest.mark.tailnet]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[HeadscaleBench]:
    it = HeadscaleBench(tmp_path)
    try:
        await it.start()
        yield it
    finally:
        await it.close()


async def test_a_key_that_has_expired_is_named_and_a_new_one_takes_effect(
    bench: HeadscaleBench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await bench.tailnet.ensure()
    first = bench.file.read_text().strip()
    info = await bench.tailnet.info()
    assert info.credential == f"API key {first.split('-')[2]} (in {bench.file})"
    assert info.credential_expires is not None and info.warning is None
    bench.theirs.expire_api_key(first)
    with pytest.raises(CredentialRefused, match=r"does not accept the API key .*`headscale apikeys create`"):
        await bench.tailnet.mint_workspace_key()
    with pytest.raises(CredentialRefused):
        await bench.tailnet.ensure()
    assert not (await bench.tailnet.info()).ready
    write_secret(bench.file, bench.theirs.api_key("72h"))
    await bench.tailnet.ensure()
    info = await bench.tailnet.info()
    assert info.ready and "expires at" in str(info.warning)
    minted = await bench.tailnet.mint_workspace_key()
    shown = caplog.text + repr(bench.tailnet.__dict__) + repr(info)
    for secret in (first, bench.file.read_text().strip(), minted.secret):
        assert secret not in shown and secret.split("-", 3)[3] not in shown


async def test_users_are_theirs_and_stay_so(bench: HeadscaleBench) -> None:
    before = bench.theirs.run("users", "list", "-o", "json"), bench.theirs.run("policy", "get")
    await bench.tailnet.ensure()
    assert sorted(await bench.tailnet.users() or []) == ["owner", "somebody"]
    await bench.tailnet.mint_workspace_key()
    for owners in ((), ("nobody",)):
        other = bench.another(owners=owners)
        with pytest.raises(NotReady, match=r"auth\.owners"):
            await other.mint_device_key()
        await other.close()
    key = await bench.tailnet.mint_device_key()
    assert await bench.join("laptop", key.secret) and (await bench.node("laptop")).user == "owner"
    assert (bench.theirs.run("users", "list", "-o", "json"), bench.theirs.run("policy", "get")) == before


async def test_a_wrong_key_and_one_of_another_kind(bench: HeadscaleBench) -> None:
    write_secret(bench.file, "hskey-api-abcdefghijkl-" + "x" * 64)
    with pytest.raises(CredentialRefused, match="it is wrong, or has expired"):
        await bench.tailnet.ensure()
    write_secret(bench.file, bench.theirs.device_key())
    with pytest.raises(CredentialRefused, match=r"does not hold an API key of headscale"):
        await bench.tailnet.ensure()
