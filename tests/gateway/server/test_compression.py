"""Content coding of responses and requests (RFC 9110)."""

import gzip

import pytest
from amarre.survey.v1 import survey_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.pages.site import static_url
from gateway.server.compression import accepts_gzip
from tests.gateway.conftest import World

CSS = static_url("amarre.css")


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br;q=1.0, *;q=0.1", True),
        ("gzip; Q=0.5", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("x-supergzip", False),
        ("gzipped", False),
        ("gzip;q=2", False),
        ("gzip;q=0.1234", False),
        ("gzip;level=9", False),
        ("identity;q=1, gzip;q=0.5", False),
    ],
)
def test_negotiation(header: str, accepted: bool) -> None:
    """Gzip is used only where Accept-Encoding allows it (RFC 9110, section 12.5.3)."""
    assert accepted is accepts_gzip(header)


@given(st.text(alphabet='gzip*identity;q=01., x-\t"', max_size=60))
def test_any_accept_encoding(header: str) -> None:
    """Any Accept-Encoding is parsed; gzip with weight 0 is never used."""
    assert accepts_gzip(header) in {True, False}
    assert not accepts_gzip(f"gzip;q=0,{header.replace('gzip', 'br')}")


async def test_small_weight(world: World) -> None:
    """A client that refuses gzip with weight 0 gets no encoding."""
    world.sign_in()
    world.survey.listed = [survey_pb2.Request(id=str(n)) for n in range(100)]
    for header in ("gzip;q=0", "x-supergzip"):
        answer = await world.http.get("/api/v1/surveys/list", headers={"accept-encoding": header})
        assert "content-encoding" not in answer.headers
        assert 100 == len(answer.json()["data"])


async def test_entity_tags(world: World) -> None:
    """
    Each content coding has its own validator, and revalidation works for both.

    Source: RFC 9110, sections 8.8.3.3, 13.1.2 and 15.4.5.
    """
    plain = await world.http.get(CSS, headers={"accept-encoding": "identity"})
    compressed = await world.http.get(CSS, headers={"accept-encoding": "gzip"})
    assert "gzip" == compressed.headers["content-encoding"]
    assert plain.content == compressed.content
    assert plain.headers["etag"] != compressed.headers["etag"]
    assert f"W/{plain.headers['etag']}" == compressed.headers["etag"]
    for known in (plain, compressed):
        assert "accept-encoding" in known.headers["vary"].lower()
        again = await world.http.get(
            CSS, headers={"accept-encoding": "gzip", "if-none-match": known.headers["etag"]}
        )
        assert 304 == again.status_code
        assert "accept-encoding" in again.headers["vary"].lower()


async def test_part(world: World) -> None:
    """A partial response is not compressed and varies (RFC 9110, section 15.3.7)."""
    answer = await world.http.get(CSS, headers={"accept-encoding": "gzip", "range": "bytes=0-9"})
    assert 206 == answer.status_code
    assert "content-encoding" not in answer.headers
    assert "accept-encoding" in answer.headers["vary"].lower()
    assert 10 == len(answer.content)


@pytest.mark.parametrize(
    ("method", "header"),
    [
        ("GET", "bytes=abc"),
        ("GET", "bytes=5-1"),
        ("GET", "bytes="),
        ("GET", "items=0-1"),
        ("GET", "bytes"),
        ("GET", "bytes=9999999-"),
        ("HEAD", "bytes=0-9"),
    ],
)
async def test_ignored_range(world: World, method: str, header: str) -> None:
    """
    A Range that is invalid, unknown, beyond the end or not of a GET is ignored.

    Source: RFC 9110, sections 14.1.1, 14.2 and 15.5.17.
    """
    whole = await world.http.request(method, CSS)
    answer = await world.http.request(method, CSS, headers={"range": header})
    assert 200 == answer.status_code
    assert whole.content == answer.content
    assert whole.headers["content-length"] == answer.headers["content-length"]


@pytest.mark.parametrize(
    ("header", "length"), [("bytes=0-0", 1), ("Bytes=0-9", 10), ("bytes=1-", -1)]
)
async def test_range(world: World, header: str, length: int) -> None:
    """A valid range of bytes is served."""
    whole = await world.http.get(CSS)
    answer = await world.http.get(CSS, headers={"range": header})
    assert 206 == answer.status_code
    assert (length if length > 0 else len(whole.content) - 1) == len(answer.content)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "nonsense"])
@pytest.mark.parametrize("path", ["/api/v1/auth/signup", "/signup"])
async def test_compressed_request(world: World, path: str, coding: str) -> None:
    """A compressed request body is 415, not read as plain (RFC 9110, section 15.5.16)."""
    answer = await world.http.post(
        path,
        content=gzip.compress(b'{"email": "ada@example.org"}'),
        headers={"content-type": "application/json", "content-encoding": coding},
    )
    assert (415, "unsupported_content_encoding") == (
        answer.status_code,
        answer.json()["error"]["code"],
    )
    assert "identity" == answer.headers["accept-encoding"]
    assert not world.auth.does.requests


async def test_identity_request(world: World) -> None:
    """``Content-Encoding: identity`` is the same as none."""
    answer = await world.http.post(
        "/api/v1/auth/signup",
        json={"email": "ada@example.org"},
        headers={"content-encoding": "identity"},
    )
    assert 200 == answer.status_code
