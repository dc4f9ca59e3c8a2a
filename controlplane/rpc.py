"""oRPC's RPC protocol: ``POST /rpc/<group>/<procedure>`` with ``{"json": input, "meta": …}``.

The answer is ``{"json": output}``. ``meta`` names values that JSON cannot carry, each as a type and the path to it:
``[[1, "when"]]`` says that ``json.when`` is a date. Of those types our inputs have use for two: big integers, and what
is undefined.
"""

from typing import Any, Final

import msgspec
from litestar import Request, Response, post
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler

from controlplane.auth.guards import identity_of, needs
from controlplane.errors import InvalidInput
from controlplane.procedures import Bound
from protocol.batches import BATCH_ID_PATTERN
from protocol.tasks import TASK_ID_PATTERN
from protocol.version import VERSION
from protocol.wire import WORKSPACE_NAME, Wire

BODY_LIMIT: Final = 7 << 19
"""Bytes of a request. The largest task (:data:`protocol.tasks.TASK_LIMIT`) fits, with what JSON makes of it; and what a
worker is asked because of it stays below :data:`protocol.worker.FRAME_LIMIT`."""

_BIGINT, _UNDEFINED = 0, 3
_READABLE = {
    f"`str` matching regex {WORKSPACE_NAME!r}": "a name of lower-case letters, digits and hyphens, begun by a letter",
    f"`str` matching regex {TASK_ID_PATTERN!r}": "a task's id, such as t-0123456789ab",
    f"`str` matching regex {BATCH_ID_PATTERN!r}": "a batch's id, such as b-0123456789ab",
    "`str` of length <= 63": "a name of at most 63 characters",
}


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The envelope of a request."""

    json: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    meta: list[list[int | str]] = []


_calls = msgspec.json.Decoder(Call)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def route(bound: Bound) -> HTTPRouteHandler:
    """Serve a procedure."""
    procedure = bound.procedure

    @post(
        procedure.path,
        name=f"{procedure.group}.{procedure.name}",
        opt=needs(procedure.right),
        status_code=200,
        media_type=MediaType.JSON,
        request_max_body_size=BODY_LIMIT,
    )
    async def answer(request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.content_type[0] != "application/json":
            raise InvalidInput("The body must be JSON; send it with `Content-Type: application/json`.")
        wanted = decode(await request.body(), procedure.input)
        output = await bound.call(wanted, identity_of(request))
        return Response(b'{"json":' + msgspec.json.encode(output) + b"}", media_type=MediaType.JSON)

    return answer


def decode(body: bytes, kind: type[Wire] | None) -> Wire | None:
    """The input in a request's body; None where the procedure takes none. InvalidInput where it does not fit."""
    try:
        call = _calls.decode(body)
    except _UNREADABLE as exc:
        raise InvalidInput(f'The body must be {{}} or {{"json": <input>}}: {_shown(exc)}.') from exc
    if kind is None:
        return None
    if isinstance(call.json, msgspec.UnsetType):
        raise InvalidInput('The input is missing; send it as {"json": <input>}.')
    try:
        value = msgspec.json.decode(call.json)
        if call.meta:
            value = _with_meta(value, call.meta)
        _refuse_unknown(value, kind)
        return msgspec.convert(value, kind) if call.meta else msgspec.json.decode(call.json, type=kind)
    except _UNREADABLE as exc:
        raise InvalidInput(f"The input is wrong: {_shown(exc)}.") from exc


def _refuse_unknown(value: Any, kind: type[Wire]) -> None:
    """A field that we do not know is a wish that we would not fulfil: of a newer or older client, or misspelt."""
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    if isinstance(value, dict) and (unknown := sorted(value.keys() - known)):
        raise InvalidInput(
            f"The input has {unknown[0]!r}, which this agent (version {VERSION}) does not know; leave it away, or "
            "install the same version on both."
        )


def _with_meta(value: Any, meta: list[list[int | str]]) -> Any:
    for kind, *path in meta:
        if kind not in (_BIGINT, _UNDEFINED) or not path:
            continue
        *above, last = path
        try:
            holder = value
            for key in above:
                holder = holder[key]
            if kind == _BIGINT:
                holder[last] = int(holder[last])
            elif isinstance(holder, dict):
                del holder[last]
        except (KeyError, IndexError, TypeError, ValueError) as exc:
            raise InvalidInput("The body's meta does not fit its json; send it as oRPC's client does.") from exc
    return value


def _shown(exc: Exception) -> str:
    message = str(exc)
    for technical, words in _READABLE.items():
        message = message.replace(technical, words)
    return message[:1].lower() + message[1:]
