"""Calls, responses and the registry of API operations."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.redcap.api.formats import MEDIA_TYPES, Row, write_rows
from sandbox.redcap.api.params import Params
from sandbox.redcap.design.project import Project
from sandbox.redcap.store import Store


@dataclass(frozen=True)
class Call:
    """One authorised call; *project* is the design at the start of the call."""

    params: Params
    store: Store
    project: Project
    username: str
    base_url: str


@dataclass(frozen=True)
class Answer:
    """A response body, whole or in chunks, with its media type."""

    body: bytes | Iterator[bytes]
    media_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One operation of the API.

    *right* is the required user right; *privileges* names it in errors.
    """

    run: Callable[[Call], Answer]
    right: str = ""
    privileges: str = ""


Operations = Mapping[tuple[str, str], Operation]
"""Operations by content and action."""

EXPORT = ("api_export", "API Export")
IMPORT = ("api_import", "API Import/Update")
DESIGN = ("design", "Project Design and Setup")
FILES = ("file_repository", "File Repository")
GROUPS = ("data_access_groups", "Data Access Groups")
SURVEYS = ("manage_survey_participants", "Survey Distribution Tools")
USERS = ("user_rights", "User Rights")


def plain(text: str) -> Answer:
    """Return a plain-text response: a link, a code, a number."""
    return Answer(text.encode(), MEDIA_TYPES["text"])


def rows_answer(
    call: Call, rows: Iterable[Row], *, columns: Sequence[str], root: str = "items"
) -> Answer:
    """Return a short table in the requested format."""
    shape = call.params.format
    pieces = write_rows(rows, shape, columns=columns, root=root, delimiter=call.params.delimiter)
    return Answer("".join(pieces).encode(), MEDIA_TYPES[shape])


def count_answer(call: Call, count: int) -> Answer:
    """Return the number of changes; the same in every format."""
    return Answer(str(count).encode(), MEDIA_TYPES[call.params.return_format])


def with_right(right: tuple[str, str], run: Callable[[Call], Answer]) -> Operation:
    """Return an operation that requires a right."""
    return Operation(run, right[0], right[1])
