"""Small units: choices, profile files, cache, pages, formulas, links, breaker."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mesh.chassis.errors import InvalidRequestError, UnavailableError, UpstreamError
from survey_svc.export.records import harmless
from survey_svc.redcap.breaker import FAILURES, REST_SECONDS, Breaker
from survey_svc.redcap.project import is_link
from survey_svc.requests.paging import page
from survey_svc.requests.rules import Request, Status
from survey_svc.service import safe_name
from survey_svc.storage.memory_cache import MemoryCache
from survey_svc.study import profile as profiles
from survey_svc.study.dictionary import parse_choices
from survey_svc.study.profile import ProfileError


class Ticks:
    """A monotonic clock that moves on request."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestChoices:
    @pytest.mark.parametrize(
        ("kind", "text", "expected"),
        [
            ("dropdown", "1, Red | 2, Green, light", {"1": "Red", "2": "Green, light"}),
            ("radio", "a,A|b,B", {"a": "A", "b": "B"}),
            ("yesno", "", {"1": "Yes", "0": "No"}),
            ("truefalse", "", {"1": "True", "0": "False"}),
            ("calc", "[a], [b]", {}),
            ("text", "", {}),
            ("dropdown", "", {}),
        ],
    )
    def test_parse(self, kind: str, text: str, expected: dict[str, str]) -> None:
        """Choices are parsed in dictionary syntax."""
        assert expected == parse_choices(kind, text)


class TestProfileFiles:
    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("name: x", ["variables", "form", "export", "pdf"]),
            ("- 1", ["profile"]),
            ("a: [", ["YAML"]),
        ],
        ids=["missing", "no mapping", "no YAML"],
    )
    def test_faults(self, tmp_path: Path, text: str, named: list[str]) -> None:
        """All problems of a profile are reported together."""
        file = tmp_path / "p.yaml"
        file.write_text(text)

        with pytest.raises(ProfileError) as ei:
            profiles.load(file)

        assert all(name in str(ei.value) for name in named)


class TestMemoryCache:
    async def test_forgets_in_time(self) -> None:
        """A value is available until it expires."""
        clock = Ticks()
        cache = MemoryCache(now=clock)
        await cache.put("k", b"v", timedelta(seconds=2))

        clock.now = 1.9
        assert b"v" == await cache.get("k")
        clock.now = 2.0
        assert await cache.get("k") is None

    async def test_bounded(self) -> None:
        """The least recently used value is evicted when the cache is full."""
        cache = MemoryCache(most_bytes=30)
        for key in "abc":
            await cache.put(key, b"x" * 9, timedelta(hours=1))
        await cache.get("a")
        await cache.put("d", b"x" * 9, timedelta(hours=1))

        assert b"x" * 9 == await cache.get("a")
        assert await cache.get("b") is None

    async def test_drop(self) -> None:
        """A deleted entry is gone; deleting a missing entry is not an error."""
        cache = MemoryCache()
        await cache.put("k", b"v", timedelta(hours=1))
        await cache.drop("k")
        await cache.drop("k")

        assert await cache.get("k") is None


class TestPages:
    def _requests(self, count: int) -> list[Request]:
        time = datetime(2026, 1, 1, tzinfo=UTC)
        return [Request(f"r{n:05}", time, "", Status.DONE, (), {}) for n in range(count, 0, -1)]

    def test_walk(self) -> None:
        """All pages together are complete, also with equal times."""
        requests = self._requests(7)
        seen: list[Request] = []
        token = ""
        while True:
            shown, token = page(requests, 3, token)
            seen += requests[shown]
            if not token:
                break

        assert requests == seen

    def test_capped(self) -> None:
        """A page holds at most 1000 requests, whatever is requested."""
        shown, token = page(self._requests(1001), 5000, "")

        assert slice(0, 1000) == shown
        assert token

    @pytest.mark.parametrize("token", ["x", "!", "e30=", "WzEsMiwzXQ==", "WyJhIiwiYiJd"])
    def test_foreign_token(self, token: str) -> None:
        """An invalid token is rejected."""
        with pytest.raises(InvalidRequestError):
            page(self._requests(1), 1, token)


class TestHarmless:
    @pytest.mark.parametrize(
        "value", ["=1+1", "+33 6 12", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", " =1", "＝1"]
    )
    def test_formulas(self, value: str) -> None:
        """A value that a spreadsheet would evaluate becomes text."""
        assert f"'{value}" == harmless(value)

    @pytest.mark.parametrize("value", ["", "a=b", "-12", "+3.5", "-0,5", "2026-01-01", "é"])
    def test_others(self, value: str) -> None:
        """Numbers and ordinary text are unchanged."""
        assert value == harmless(value)


class TestLinks:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("https://redcap.example.org/surveys/?s=AB", True),
            ("http://127.0.0.1:3010/surveys/?s=AB", True),
            ("javascript:alert(1)", False),
            ("//example.org/x", False),
            ("https://", False),
            ("https://[", False),
            ("https://a b", False),
            ("https://a/\nb", False),
            ("http://h:abc/x", False),
            ("http://h:99999/x", False),
            ("http://h:0/x", False),
            ("http://redcap.example.org@evil.example/x", False),
            ("http://redcap.example.org\\@evil.example/x", False),
            ("http://evil.example\\.redcap.example.org/x", False),
            ("https://a/" + "x" * 3000, False),
            ("", False),
        ],
    )
    def test_is_link(self, text: str, expected: bool) -> None:
        """Only http and https URLs that fit the contract are links."""
        assert expected is is_link(text)


class TestSafeName:
    def test_name(self) -> None:
        """A record id in a file name keeps letters, digits, dots, dashes and underscores."""
        assert "a_b____c.d-e" == safe_name('a_b"\r\n/c.d-e')


class TestBreaker:
    def test_opens_and_closes(self) -> None:
        """
        Consecutive failures open the circuit; later one trial call is admitted, and success closes
        it.
        """
        clock = Ticks()
        breaker = Breaker(clock)
        for _ in range(FAILURES):
            with pytest.raises(UpstreamError), breaker.call():
                raise UpstreamError("no")
        with pytest.raises(UnavailableError), breaker.call():
            pass

        clock.now = REST_SECONDS
        with breaker.call(), pytest.raises(UnavailableError), breaker.call():
            pass
        for _ in range(2):
            with breaker.call():
                pass
