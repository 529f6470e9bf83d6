"""Types of gRPC's servicer context, for any message types, and of call headers."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Metadata: TypeAlias = Sequence[tuple[str, Any]]


metadata: ContextVar[Metadata] = ContextVar("metadata", default=())
"""Headers of the call being served; a context decodes all of them each time it is asked."""
