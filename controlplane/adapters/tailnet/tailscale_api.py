"""Tailscale's API, by the client from PyPI: with patience where it has none, and its errors in our words.

What the API answers was taken from its OpenAPI document and from answers of the real one; it tells reasons apart by
HTTP status, and beyond that by the text of ``message`` alone.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
from tailscale import (
    Tailscale,
    TailscaleAuthenticationError,
    TailscaleConnectionError,
    TailscaleError,
    TailscaleNotFoundError,
    TailscalePermissionError,
    TailscaleResponseError,
    TailscaleUnauthorizedError,
)
from yarl import URL

from controlplane.adapters.tailnet.credential import Credential, Kind
from controlplane.errors import CredentialRefused, TailnetError, TailnetUnavailable

log = logging.getLogger(__name__)

API = "https://api.tailscale.com"
KEYS_PAGE = "https://login.tailscale.com/admin/settings/keys"
TRUST_PAGE = "https://login.tailscale.com/admin/settings/trust-credentials"
MACHINES_PAGE = "https://login.tailscale.com/admin/machines"
POLICY_PAGE = "https://login.tailscale.com/admin/acls/file"

TAG_OWNERS = (
    '"tagOwners": {"tag:perry": ["autogroup:admin"], "tag:perry-workspace": ["tag:perry", "autogroup:admin"], '
    '"tag:perry-gateway": ["tag:perry", "autogroup:admin"]}'
)
"""An OAuth client may make keys with its own tags, all of them at once, or with tags that its tag owns. So it has
``tag:perry`` alone, which owns the others."""

ATTEMPTS = 4
ATTEMPT_SECONDS = 5.0
LONGEST_PAUSE = 5.0
ALL_SECONDS = 12.0
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class PatientSession:
    """As much of an ``aiohttp.ClientSession`` as the client needs. What may pass is asked again, within bounds.

    A key that was made although its answer did not arrive is worth nothing after minutes, so that making one may be
    repeated too. The client knows one address of the API; ``api`` takes its place.
    """

    def __init__(self, api: str, *, pause: float = 0.5) -> None:
        self._api = URL(api)
        self._pause = pause
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ATTEMPT_SECONDS))

    async def request(self, method: str, url: URL, **options: Any) -> aiohttp.ClientResponse:
        at = url.with_scheme(self._api.scheme).with_host(str(self._api.host)).with_port(self._api.port)
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                answer = await self._session.request(method, at, allow_redirects=False, **options)
            except (aiohttp.ClientError, TimeoutError):
                if last:
                    raise
                await asyncio.sleep(self._pause * 2**attempt)
                continue
            if last or answer.status not in TRY_AGAIN:
                return answer
            pause = _retry_after(answer, self._pause * 2**attempt)
            log.info("Tailscale's API answered HTTP %s; asking again in %.1f s", answer.status, pause)
            answer.release()
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        await self._session.close()


def _retry_after(answer: aiohttp.ClientResponse, otherwise: float) -> float:
    try:
        return min(float(answer.headers["Retry-After"]), LONGEST_PAUSE)
    except (KeyError, ValueError):
        return otherwise


class TailscaleApi:
    """The client with one credential, which is no auth key. Call what it has inside :meth:`asking`."""

    def __init__(self, credential: Credential, api: str = API, *, pause: float = 0.5) -> None:
        self.credential = credential
        self._api = api
        session = PatientSession(api, pause=pause)
        is_client = credential.kind is Kind.OAUTH_CLIENT
        self.client = Tailscale(
            api_key=None if is_client else credential.secret,
            oauth_client_id=credential.id if is_client else None,
            oauth_client_secret=credential.secret if is_client else None,
            session=cast(aiohttp.ClientSession, session),
            request_timeout=ALL_SECONDS,
        )
        self._session = session

    async def close(self) -> None:
        await self.client.close()
        await self._session.close()

    def was_token_refused(self, error: CredentialRefused) -> bool:
        """Whether it was the hour's token, of which the client gets another: a machine that slept does not notice."""
        refused = isinstance(error.__cause__, TailscaleUnauthorizedError)
        return refused and self.credential.kind is Kind.OAUTH_CLIENT

    @contextlib.asynccontextmanager
    async def asking(self, what: str, *, scope: str) -> AsyncIterator[None]:
        """Translate errors. ``what`` is what was asked for and ``scope`` what that takes, for the sentence."""
        try:
            yield
        except TailscaleNotFoundError:
            raise
        except TailscaleUnauthorizedError as exc:
            raise CredentialRefused(self._refused()) from exc
        except TailscalePermissionError as exc:
            raise CredentialRefused(self._lacks(what, scope, exc.reason)) from exc
        except TailscaleResponseError as exc:
            if exc.status == 400 and "tag" in exc.reason.lower():
                raise CredentialRefused(self._no_tag(exc.reason)) from exc
            if exc.status == 429:
                raise TailnetUnavailable(f"Tailscale's API takes no more requests for now ({exc.reason}).") from exc
            if exc.status >= 500:
                raise TailnetUnavailable(
                    f"Tailscale's API failed to {what} (HTTP {exc.status}: {exc.reason}); "
                    "`perry tailnet status` shows how it stands."
                ) from exc
            raise TailnetError(f"Tailscale's API refused to {what}: {exc.reason}") from exc
        except TailscaleConnectionError as exc:
            raise TailnetUnavailable(
                f"Tailscale's API at {self._api} does not answer; `perry tailnet status` shows how it stands."
            ) from exc
        except TailscaleAuthenticationError as exc:
            raise CredentialRefused(f"Tailscale gave no token for the {self.credential}: {exc}") from exc
        except (TailscaleError, LookupError, ValueError) as exc:
            # What the client's models cannot read is one of the latter two.
            raise TailnetError("Tailscale's API answered something that cannot be understood.") from exc

    def _refused(self) -> str:
        page = TRUST_PAGE if self.credential.kind is Kind.OAUTH_CLIENT else KEYS_PAGE
        return (
            f"Tailscale does not accept the {self.credential}: it is wrong, was revoked, or has expired; "
            f"make a new one at {page} and put it into that file."
        )

    def _lacks(self, what: str, scope: str, said: str) -> str:
        if self.credential.kind is Kind.OAUTH_CLIENT:
            mend = f"make one with the scope {scope} at {TRUST_PAGE}, and put its secret into that file"
        else:
            mend = "it has to be of somebody who administers the tailnet"
        return f"The {self.credential} may not {what} (Tailscale says: {said}); {mend}."

    def _no_tag(self, said: str) -> str:
        mend = f"have {TAG_OWNERS} in the policy ({POLICY_PAGE})"
        if self.credential.kind is Kind.OAUTH_CLIENT:
            mend += f", and give the OAuth client the tag tag:perry and no other ({TRUST_PAGE})"
        return f"The {self.credential} may not make keys for workspaces (Tailscale says: {said}); {mend}."
