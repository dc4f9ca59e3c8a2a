"""The procedures of credentials: ``workspaces.sync``, what is brought, and secrets."""

from controlplane.credentials.service import Credentials
from controlplane.credentials.store import Secrets
from controlplane.procedures import Group
from protocol.credentials import Brought, SecretNames, SecretRef, SetSecret, Synced, SyncWorkspace

workspaces = Group("workspaces", Credentials)
group = Group("credentials", Credentials)
secrets = Group("secrets", Secrets)


@workspaces.procedure("sync")
async def sync(credentials: Credentials, wanted: SyncWorkspace) -> Synced:
    """Bring what has changed of credentials and settings into it. What the user changed there stays, and is named."""
    return await credentials.sync(wanted.name)


@group.procedure("list")
async def list_(credentials: Credentials) -> Brought:
    """What workspaces are given, and where it comes from; never its content."""
    return await credentials.brought()


@secrets.procedure("set")
async def set_(secrets: Secrets, wanted: SetSecret) -> SecretNames:
    """Keep a secret, or replace it. Settings name it as `{"secret": name}`."""
    secrets.set(wanted.name, wanted.value)
    return SecretNames(items=secrets.names())


@secrets.procedure("list")
async def names(secrets: Secrets) -> SecretNames:
    """The names of all secrets."""
    return SecretNames(items=secrets.names())


@secrets.procedure("remove")
async def remove(secrets: Secrets, wanted: SecretRef) -> SecretNames:
    """Forget a secret. NOT_FOUND where there is none of that name."""
    secrets.remove(wanted.name)
    return SecretNames(items=secrets.names())
