"""Responses of REDCap with status 200 that are partial, duplicated or error pages."""

import json

import httpx
import pytest

from mesh.chassis.errors import UpstreamError
from survey_svc.redcap.client import ATTEMPTS
from survey_svc.redcap.project import RedcapProject
from tests.survey_svc.redcap.conftest import GOOD, HTML, PDF, Redcap, json_response


class TestPartial:
    @pytest.mark.parametrize(
        "body",
        [HTML, '[{"record_id": "r1"', '[{"record_id": NaN}]', "<br /><b>Warning</b>: x[]", "null,"],
        ids=["HTML", "truncated", "NaN", "PHP warning", "more than a value"],
    )
    async def test_unreadable(self, project: RedcapProject, redcap: Redcap, body: str) -> None:
        """A response with status 200 that is not JSON is retried, then UPSTREAM_ERROR."""
        redcap.answers = [httpx.Response(200, text=body), json_response([GOOD])]
        assert 1 == len(await project.rows(["ada"]))

        redcap.asked.clear()
        redcap.answers = [httpx.Response(200, text=body)]
        with pytest.raises(UpstreamError):
            await project.rows(["ada"])
        assert ATTEMPTS == len(redcap.asked)

    async def test_unreadable_kinds(self, project: RedcapProject, redcap: Redcap) -> None:
        """Links, imports and files are also retried after an error page with status 200."""
        page = httpx.Response(200, text=HTML)
        redcap.answers = [page, httpx.Response(200, text="http://redcap.test/s")]
        assert "http://redcap.test/s" == await project.link("r1", "form")

        redcap.answers = [httpx.Response(200, text=HTML), json_response({"count": 1})]
        await project.save(GOOD)

        redcap.answers = [httpx.Response(200, text=HTML), httpx.Response(200, content=PDF)]
        assert PDF == b"".join([piece async for piece in project.pdf("r1", "form")])

    async def test_twice(self, project: RedcapProject, redcap: Redcap) -> None:
        """A record that occurs twice is one record; two versions of it are retried."""
        redcap.answers = [json_response([GOOD, GOOD])]
        assert [GOOD] == await project.rows(["ada"])
        assert ["r1"] == await project.records("ada")
        assert 1 == len(await project.answers("ada", ["r1"]))

        both = [GOOD, GOOD | {"form_complete": "2"}]
        redcap.answers = [json_response(both), json_response([GOOD])]
        assert [GOOD] == await project.rows(["ada"])

        redcap.answers = [json_response(both)]
        with pytest.raises(UpstreamError):
            await project.rows(["ada"])

    async def test_byte_order_mark(self, project: RedcapProject, redcap: Redcap) -> None:
        """A byte order mark before a response is ignored.

        Source:
            RFC 8259, section 8.1.
        """
        body = b"\xef\xbb\xbf" + json.dumps([GOOD]).encode()
        redcap.answers = [httpx.Response(200, content=body)]
        assert [GOOD] == await project.rows(["ada"])

        redcap.answers = [httpx.Response(200, content=b"\xef\xbb\xbfhttp://redcap.test/s")]
        assert "http://redcap.test/s" == await project.link("r1", "form")

    async def test_part_of_a_file(self, project: RedcapProject, redcap: Redcap) -> None:
        """A PDF without its end mark is an error, not a short file, whatever closed it."""
        redcap.answers = [httpx.Response(200, content=b"%PDF-1.7\n1 0 obj")]

        with pytest.raises(UpstreamError):
            [piece async for piece in project.pdf("r1", "form")]
