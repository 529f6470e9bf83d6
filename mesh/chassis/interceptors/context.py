"""Types of gRPC's servicer context, for any message types, and of call headers."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Metadata: TypeAlias = Sequence[tuple[str, Any]]


def metadata_of(context: Context) -> Metadata:
    """Return the headers of a call; gRPC decodes all of them each time."""
    found: Any = context.invocation_metadata()
    return found or ()
