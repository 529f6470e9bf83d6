"""Queries of ``GET /users``: filters, order and pagination, as encoded by the SDKs' ``Query``."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sandbox.appwrite import models
from sandbox.appwrite.errors import AppwriteError, invalid
from sandbox.appwrite.state import User

PAGE, LARGEST_PAGE = 25, 5_000
ATTRIBUTES = {
    *("$id", "$createdAt", "$updatedAt", "name", "email", "phone", "status", "passwordUpdate"),
    *("registration", "emailVerification", "phoneVerification", "labels", "accessedAt"),
}


@dataclass(frozen=True)
class Query:
    """One query: its method, attribute and values."""

    method: str
    attribute: str = ""
    values: tuple[object, ...] = ()


@dataclass
class _Plan:
    filters: list[Query] = field(default_factory=list)
    order: list[tuple[str, bool]] = field(default_factory=list)
    limit: int = PAGE
    offset: int = 0
    after: str = ""
    before: str = ""


def select(
    users: Sequence[User], texts: Iterable[str], *, search: str = ""
) -> tuple[int, list[User]]:
    """
    Return the number of matching users, and the requested page of them.

    Raises:
        AppwriteError: A query is malformed, or its cursor is unknown.
    """
    plan = _plan(texts)
    words = search.lower().split()
    found = [
        user
        for user in users
        if all(word in _searchable(user) for word in words)
        and all(_matches(query, user) for query in plan.filters)
    ]
    for attribute, descending in reversed(plan.order):
        found.sort(key=partial(_text, attribute), reverse=descending)
    return len(found), _page(found, plan)


def _page(found: list[User], plan: _Plan) -> list[User]:
    ids = [user.id for user in found]
    cursor = plan.after or plan.before
    if cursor and cursor not in ids:
        raise AppwriteError("general_cursor_not_found", f"Cursor {cursor} not found")
    if plan.before:
        end = ids.index(plan.before)
        return found[max(0, end - plan.limit) : end]
    start = (ids.index(plan.after) + 1 if plan.after else 0) + plan.offset
    return found[start : start + plan.limit]


def _plan(texts: Iterable[str]) -> _Plan:
    plan = _Plan()
    for text in texts:
        query = _parse(text)
        first = query.values[0] if query.values else None
        match query.method:
            case "limit" if type(first) is int and 0 < first <= LARGEST_PAGE:
                plan.limit = first
            case "offset" if type(first) is int and 0 <= first <= LARGEST_PAGE:
                plan.offset = first
            case "cursorAfter" if isinstance(first, str):
                plan.after = first
            case "cursorBefore" if isinstance(first, str):
                plan.before = first
            case "orderAsc" | "orderDesc" if query.attribute in ATTRIBUTES | {""}:
                plan.order.append((query.attribute or "$id", query.method == "orderDesc"))
            case "orderRandom":
                plan.order.append(("$id", False))
            case _ if _is_filter(query):
                plan.filters.append(query)
            case _:
                raise invalid("queries", f"Invalid query: {text}")
    return plan


def _is_filter(query: Query) -> bool:
    if query.method in _JUNCTIONS:
        parts = [part for part in query.values if isinstance(part, Query)]
        return len(parts) == len(query.values) > 1 and all(map(_is_filter, parts))
    return (
        (query.method in _TESTS or query.method in _NEGATED)
        and query.attribute in ATTRIBUTES
        and len(query.values) >= _VALUES.get(query.method, 1)
    )


def _parse(text: str) -> Query:
    try:
        return _query(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise invalid("queries", f"Invalid query: {text}") from exc


def _query(found: Any) -> Query:
    """
    Return the query in *found*; its values are queries in a junction.

    Raises:
        LookupError, TypeError, AttributeError, RecursionError: It is not a query.
    """
    method, attribute = found["method"], found.get("attribute", "")
    if not isinstance(method, str) or not isinstance(attribute, str):
        raise TypeError("method and attribute are strings")
    given = found.get("values", [])
    if not isinstance(given, list):
        raise TypeError("values are a list")
    values = tuple(given)
    return Query(method, attribute, tuple(map(_query, values)) if method in _JUNCTIONS else values)


def _value(user: User, attribute: str) -> object:
    found = models.full_user(user).get(attribute)
    # Stored as null, shown as an empty string.
    return None if attribute in {"email", "phone"} and found == "" else found


def _text(attribute: str, user: User) -> str:
    return str(_value(user, attribute) or "")


def _searchable(user: User) -> str:
    return f"{user.id} {user.email} {user.phone} {user.name}".lower()


def _matches(query: Query, user: User) -> bool:
    if query.method in _JUNCTIONS:
        parts = (_matches(part, user) for part in query.values if isinstance(part, Query))
        return _JUNCTIONS[query.method](parts)
    if query.method in _NEGATED:
        positive = Query(_NEGATED[query.method], query.attribute, query.values)
        return not _matches(positive, user)
    return _TESTS[query.method](_value(user, query.attribute), query.values)


def _compared(left: object, right: object) -> int:
    """Compare two times, or two strings; return -1, 0 or 1."""
    texts = str(left), str(right)
    try:
        one, two = (datetime.fromisoformat(text).timestamp() for text in texts)
    except ValueError:
        return (texts[0] > texts[1]) - (texts[0] < texts[1])
    return (one > two) - (one < two)


def _contains(value: object, values: Sequence[object]) -> bool:
    if isinstance(value, list):
        return any(wanted in value for wanted in values)
    return any(str(wanted) in str(value) for wanted in values)


_VALUES = {"isNull": 0, "isNotNull": 0, "between": 2, "notBetween": 2}
"""Number of values by method; every other method takes one."""
_JUNCTIONS: dict[str, Callable[[Iterable[bool]], bool]] = {"or": any, "and": all}
"""Methods whose values are queries."""
_NEGATED = {
    "notContains": "contains",
    "notSearch": "search",
    "notBetween": "between",
    "notStartsWith": "startsWith",
    "notEndsWith": "endsWith",
}
_TESTS: dict[str, Callable[[object, Sequence[object]], bool]] = {
    "equal": lambda value, values: value in values,
    "notEqual": lambda value, values: value not in values,
    "isNull": lambda value, _: value is None,
    "isNotNull": lambda value, _: value is not None,
    "startsWith": lambda value, values: str(value).startswith(str(values[0])),
    "endsWith": lambda value, values: str(value).endswith(str(values[0])),
    "contains": _contains,
    "search": lambda value, values: str(values[0]).lower() in str(value).lower(),
    "lessThan": lambda value, values: _compared(value, values[0]) < 0,
    "lessThanEqual": lambda value, values: _compared(value, values[0]) <= 0,
    "greaterThan": lambda value, values: _compared(value, values[0]) > 0,
    "greaterThanEqual": lambda value, values: _compared(value, values[0]) >= 0,
    "between": lambda value, values: (
        _compared(value, values[0]) >= 0 and _compared(value, values[1]) <= 0
    ),
}
