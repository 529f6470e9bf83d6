"""The parser of REDCap's responses, with arbitrary input."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.chassis.errors import UpstreamError
from survey_svc.redcap import responses

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
BODIES = (
    JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=200)
    | st.integers(1, 100_000).map(lambda depth: b"[" * depth)
    | JSON.map(lambda value: json.dumps([{"record_id": value}]).encode())
)


@given(BODIES)
def test_any_body(body: bytes) -> None:
    """Any body is rows of Unicode text or an upstream error, never another exception."""
    try:
        rows = responses.rows(responses.parse_json(body), "record_id")
    except UpstreamError:
        return
    for row in rows:
        for name, value in row.items():
            assert isinstance(value, str)
            (name + value).encode()


@given(st.binary(max_size=200))
def test_any_text(body: bytes) -> None:
    """Any body is text or an upstream error."""
    with contextlib.suppress(UpstreamError):
        assert responses.text(body) == body.decode("utf-8-sig")
    assert responses.is_error(body) in {True, False}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('[{"a": 1, "b": null, "c": "x"}]', [{"a": "1", "b": "", "c": "x"}]),
        ('[{"a": 1.50, "b": 1e400, "c": true}]', [{"a": "1.50", "b": "1e400", "c": "1"}]),
        ("[]", []),
        ('[{"a": "\\ud83d\\ude00"}]', [{"a": "\U0001f600"}]),
    ],
    ids=["number and null", "as written", "none", "surrogate pair"],
)
def test_values(text: str, rows: list[dict[str, Any]]) -> None:
    """Numbers keep their text, null is blank, true is 1."""
    assert rows == responses.rows(responses.parse_json(text.encode()))


@pytest.mark.parametrize(
    "text", ["", " ", "<html>", "[" * 100_000, '[{"a": NaN}]', '{"error": "x"}', '[{"a": "b"']
)
def test_refused(text: str) -> None:
    """Empty, HTML, nested, not JSON, an error, truncated: upstream errors.

    Source:
        RFC 8259, sections 3, 6 and 9.
    """
    with pytest.raises(UpstreamError):
        responses.parse_json(text.encode())


@pytest.mark.parametrize("text", ['["a"]', '[{"a": []}]', '[{"a": {}}]', '[{"a": "\\ud800"}]', "1"])
def test_refused_rows(text: str) -> None:
    """Wrong types and unpaired surrogates are upstream errors."""
    with pytest.raises(UpstreamError):
        responses.rows(responses.parse_json(text.encode()))
