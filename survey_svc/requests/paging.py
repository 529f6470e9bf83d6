"""Pagination of requests; a token names the last request of its page."""

import base64
import binascii
import json
from collections.abc import Sequence

from mesh.chassis.errors import InvalidRequestError, Violation
from survey_svc.requests.rules import Request, order

MOST = 1000


def page(requests: Sequence[Request], size: int, token: str) -> tuple[slice, str]:
    """Return one page.

    Args:
        requests: All requests, newest first.
        size: The page size; 0 and values above `MOST` mean `MOST`.
        token: The token of the previous page; empty for the first page.

    Returns:
        The requests of the page, and the token of the next page; empty on the last one.

    Raises:
        InvalidRequestError: The token is not valid.
    """
    start = 0
    if token:
        last = _decode(token)
        # The request that the token names may have been deleted; continue after its position.
        start = sum(order(request) >= last for request in requests)
    end = min(start + min(size or MOST, MOST), len(requests))
    return slice(start, end), _encode(order(requests[end - 1])) if end < len(requests) else ""


def _encode(last: tuple[float, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(last).encode()).decode()


def _decode(token: str) -> tuple[float, str]:
    try:
        time, record = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        return float(time), str(record)
    except (ValueError, TypeError, binascii.Error) as exc:
        raise InvalidRequestError(
            "The page token is not valid; start with the first page.",
            violations=[Violation("page_token", "must be a next_page_token", "page_token")],
        ) from exc
