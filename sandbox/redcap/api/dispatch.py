"""Dispatch of API calls: authentication, choice of operation, check of rights."""

import re
from dataclasses import replace

import structlog

from sandbox.redcap.api.formats import MEDIA_TYPES, error_body
from sandbox.redcap.api.operation import Answer, Call, Operations
from sandbox.redcap.api.operations import (
    dictionary,
    events,
    files,
    groups,
    project,
    project_log,
    records,
    repository,
    roles,
    surveys,
    users,
)
from sandbox.redcap.api.params import Params
from sandbox.redcap.errors import ApiError, ForbiddenError, UnsupportedError
from sandbox.redcap.records import storage
from sandbox.redcap.store import Store, find_token

log = structlog.get_logger(__name__)

OPERATIONS: Operations = {
    **records.OPERATIONS,
    **dictionary.OPERATIONS,
    **project.OPERATIONS,
    **surveys.OPERATIONS,
    **files.OPERATIONS,
    **events.OPERATIONS,
    **users.OPERATIONS,
    **roles.OPERATIONS,
    **groups.OPERATIONS,
    **project_log.OPERATIONS,
    **repository.OPERATIONS,
}

CONTENTS = frozenset(content for content, _ in OPERATIONS)
_EXPORT_ONLY = frozenset(
    content for content in CONTENTS if {a for c, a in OPERATIONS if c == content} == {"export"}
)
_TOKEN = re.compile(r"[0-9A-Fa-f]{32}")
_NO_API = "You do not have permissions to use the API"


def answer(params: Params, store: Store, *, base_url: str) -> Answer:
    """Serve one call; turn errors into responses.

    Args:
        params: The request's parameters.
        store: The sandbox's data.
        base_url: Where clients reach this server; survey links begin with it.
    """
    try:
        return _serve(params, store, base_url)
    except ApiError as exc:
        return error_answer(exc, params)
    except Exception:
        log.exception("api call failed", content=params.content, action=params.action)
        return error_answer(_BrokenError(), params)


class _BrokenError(ApiError):
    status = 500

    def __init__(self) -> None:
        super().__init__("The server failed to process this request.")


def error_answer(error: ApiError, params: Params) -> Answer:
    """Return the error envelope in the client's format."""
    shape = params.return_format
    return Answer(error_body(error.message, shape).encode(), MEDIA_TYPES[shape], error.status)


def _serve(params: Params, store: Store, base_url: str) -> Answer:
    if project.is_creation(params):
        return project.create(params, store)
    call = _authorise(params, store, base_url)
    if params.content not in CONTENTS:
        raise ApiError('The value of the parameter "content" is not valid')
    # An action is ignored for content that can only be exported.
    action = "export" if params.content in _EXPORT_ONLY else params.action
    operation = OPERATIONS.get((params.content, action))
    if operation is None:
        raise UnsupportedError
    rights = call.project.rights_of(call.username)
    if operation.right and not int(rights.get(operation.right, 0) or 0):
        raise ForbiddenError(f"You do not have {operation.privileges} privileges")
    return operation.run(_with_stored_names(call))


def _with_stored_names(call: Call) -> Call:
    named = [name for name in (*call.params.items("records"), call.params.text("record")) if name]
    if not named:
        return call
    with call.store.reading() as db:
        stored = storage.canonical(db, call.project.id, named)
    return replace(call, params=call.params.with_record_names(stored))


def _authorise(params: Params, store: Store, base_url: str) -> Call:
    token = params.text("token")
    if not _TOKEN.fullmatch(token):
        raise ForbiddenError(_NO_API)
    with store.reading() as db:
        found = find_token(db, token.upper())
        if found is None:
            raise ForbiddenError(_NO_API)
        design = store.project(db, found[0])
    if found[1] not in design.users:
        raise ForbiddenError(_NO_API)
    return Call(params, store, design, username=found[1], base_url=base_url)
