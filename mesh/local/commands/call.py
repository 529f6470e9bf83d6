"""``amarre call``: a typed call over mTLS, JSON in and out."""

from collections.abc import AsyncIterator

import grpc

from mesh.chassis.errors import from_rpc_error
from mesh.local.control.direct_call import CallRefusedError, as_json, prepare
from mesh.local.data_folder import DataFolder

__all__ = ["CallRefusedError", "call"]


async def call(
    data_folder: DataFolder, name: str, request: str, identity: str, *, session: str = ""
) -> AsyncIterator[str]:
    """Call the method *name* of a running mesh, see `direct_call.prepare`.

    Yields:
        Each response as JSON.

    Raises:
        CallRefusedError: The call cannot be made or failed.
    """
    prepared = prepare(data_folder, name, request, identity, session)
    try:
        async for answer in prepared.responses():
            yield as_json(answer)
    except grpc.aio.AioRpcError as exc:
        error = from_rpc_error(exc)
        facts = "".join(f"\n  {key}: {value}" for key, value in error.metadata.items())
        raise CallRefusedError(f"{exc.code().name}: {error.message}{facts}") from exc
