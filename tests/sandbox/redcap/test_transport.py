"""One address, one envelope: transport, tokens, errors, rights, faults and counts."""

import json
from typing import Any

import httpx
import pytest

from tests.sandbox.redcap.conftest import TOKEN, Api

NO_API = "You do not have permissions to use the API"


class TestTransport:
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/api/"), ("POST", "/api"), ("GET", "/api"), ("PUT", "/api/")]
    )
    async def test_only_post_with_slash(self, api: Api, method: str, path: str) -> None:
        """Anything but POST to the address with its slash is 501, in the envelope."""
        answer = await api.http.request(method, path)
        assert 501 == answer.status_code
        assert "<error>The requested method is not implemented.</error>" in answer.text

    async def test_multipart_is_taken_everywhere(self, api: Api) -> None:
        """Every operation accepts a multipart body."""
        form = {"token": TOKEN, "content": "version"}
        answer = await api.http.post("/api/", data=form, files={"unused": ("", b"")})
        assert "16.1.9" == answer.text

    async def test_arrays_and_lists(self, api: Api) -> None:
        """``fields[0]``, ``fields[]`` and a comma-separated list are equivalent."""
        await api.save({"record_id": "1", "email": "a@example.org"})
        expected = [{"record_id": "1", "email": "a@example.org"}]
        assert expected == await api.export(fields=["record_id", "email"])
        assert expected == await api.export(fields="record_id,email")
        body = f"token={TOKEN}&content=record&format=json&fields[]=record_id&fields[]=email"
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await api.http.post("/api/", content=body, headers=headers)
        assert expected == answer.json()

    async def test_empty_means_absent(self, api: Api) -> None:
        """The application's calls send every parameter, most of them empty."""
        await api.save({"record_id": "1", "userid": "u", "email": "a@example.org"})
        rows = await api.export(
            action="export", type="flat", csvDelimiter="", records="", fields="userid", forms="",
            rawOrLabel="raw", rawOrLabelHeaders="raw", exportCheckboxLabel="false",
            exportSurveyFields="false", exportDataAccessGroups="false", returnFormat="json",
            filterLogic='[email] = "a@example.org"',
        )  # fmt: skip
        assert [{"userid": "u"}] == rows

    @pytest.mark.parametrize(
        ("shape", "media"),
        [("json", "application/json"), ("csv", "text/csv"), ("xml", "text/xml")],
    )
    async def test_media_types(self, api: Api, shape: str, media: str) -> None:
        """Data has the media type of its format; links and versions are plain text."""
        answer = await api.post("metadata", format=shape)
        assert f"{media}; charset=utf-8" == answer.headers["content-type"]
        answer = await api.post("version", format=shape)
        assert "text/html; charset=UTF-8" == answer.headers["content-type"]


class TestErrors:
    @pytest.mark.parametrize("token", ["", "C" * 32, "x", "A" * 31, "A" * 64, "' or 1=1 --"])
    async def test_bad_tokens(self, api: Api, token: str) -> None:
        """An unknown, malformed or missing token gives 403 for any content."""
        assert NO_API == await api.error("record", token=token, status=403)

    async def test_token_case(self, api: Api) -> None:
        """The hexadecimal digits of a token are case-insensitive."""
        assert "16.1.9" == await api.text("version", token=TOKEN.lower())

    async def test_envelopes(self, api: Api) -> None:
        """Errors use returnFormat, else format, else xml."""
        sentence = 'The value of the parameter "content" is not valid'
        answer = await api.post("nonsense", format="csv", returnFormat="json")
        assert (400, {"error": sentence}) == (answer.status_code, answer.json())
        assert f"ERROR: {sentence}" == (await api.post("nonsense", format="csv")).text
        assert (
            f'<?xml version="1.0" encoding="UTF-8" ?><hash><error>{sentence}</error></hash>'
        ) == (await api.post("nonsense")).text

    async def test_xml_error_is_escaped(self, api: Api) -> None:
        """No input breaks the envelope."""
        answer = await api.post("surveyLink", record="<1>&", instrument="form")
        assert 'The record "&lt;1&gt;&amp;" does not exist' in answer.text

    async def test_unknown_action(self, api: Api) -> None:
        """An action that the content lacks gives 501; export-only content ignores it."""
        await api.error("record", action="explode", status=501)
        assert "16.1.9" == await api.text("version", action="import")

    @pytest.mark.parametrize(
        ("content", "params", "name"),
        [
            ("record", {"format": "yaml"}, "format"),
            ("record", {"type": "wide"}, "type"),
            ("record", {"rawOrLabel": "x"}, "rawOrLabel"),
            ("record", {"exportSurveyFields": "maybe"}, "exportSurveyFields"),
            ("record", {"csvDelimiter": "::"}, "csvDelimiter"),
            ("record", {"dateRangeBegin": "yesterday"}, "dateRangeBegin"),
            ("record", {"dateRangeEnd": "2026-13-45 99:99:99"}, "dateRangeEnd"),
            ("record", {"data": "[]", "overwriteBehavior": "x"}, "overwriteBehavior"),
            ("log", {"logtype": "x"}, "logtype"),
        ],
    )
    async def test_bad_values(
        self, api: Api, content: str, params: dict[str, Any], name: str
    ) -> None:
        """A value outside the allowed ones gives 400 and names its parameter."""
        message = await api.error(content, **params)
        assert f'The value of the parameter "{name}" is not valid' == message


@pytest.fixture
async def guest(api: Api) -> Api:
    """The same project with fewer rights for its only user."""
    fresh = await api.create()
    await fresh.save({"record_id": "1"})
    rights = {"username": "sandbox", "api_import": 0, "record_delete": 0, "design": 0}
    await fresh.json("user", data=json.dumps([rights]), action="import")
    return fresh


class TestRights:
    async def test_without_rights(self, guest: Api) -> None:
        """A missing right gives 403 and names the privilege."""
        message = await guest.error("record", data="[]", status=403)
        assert "You do not have API Import/Update privileges" == message
        message = await guest.error("record", action="delete", records=["1"], status=403)
        assert "You do not have Delete Record privileges" == message
        await guest.error("metadata", data="[]", status=403)

    async def test_projects_are_apart(self, api: Api, guest: Api) -> None:
        """A token sees only its own project."""
        assert [] == await api.export()
        assert ["1"] == [row["record_id"] for row in await guest.export()]


async def put(http: httpx.AsyncClient, **faults: object) -> None:
    """Set the faults."""
    answer = await http.put("/_control/faults", json=faults)
    assert 200 == answer.status_code, answer.text


class TestControl:
    async def test_counts(self, api: Api) -> None:
        """Calls are counted by content and action until cleared; controls are not calls."""
        await api.save({"record_id": "1"})
        await api.export()
        await api.post("nonsense<script>")
        counts = (await api.http.get("/_control/calls")).json()
        expected = {"record": {"import": 1, "export": 1}, "unknown": {"export": 1}}
        assert expected == counts
        assert 204 == (await api.http.delete("/_control/calls")).status_code
        assert {} == (await api.http.get("/_control/calls")).json()

    @pytest.mark.parametrize(
        ("mode", "status", "body"), [("500", 500, "Internal"), ("html", 200, "<!doctype html>")]
    )
    async def test_modes(self, api: Api, mode: str, status: int, body: str) -> None:
        """A fault mode applies to every call except the control calls."""
        await put(api.http, mode=mode)
        answer = await api.post("version")
        assert status == answer.status_code
        assert answer.text.startswith(body)
        assert 200 == (await api.http.get("/_control/health")).status_code
        await put(api.http)
        assert "16.1.9" == await api.text("version")

    async def test_empty(self, api: Api) -> None:
        """Mode empty returns 200 with zero bytes."""
        await put(api.http, mode="empty", error_rate=1.0)
        answer = await api.post("version")
        assert (200, b"") == (answer.status_code, answer.content)

    async def test_partial(self, api: Api) -> None:
        """Mode partial carries the call out and returns half of the response as if whole."""
        await api.save({"record_id": "1", "userid": "u1"})
        whole = (await api.post("record", action="export")).content
        await put(api.http, mode="partial")
        answer = await api.post("record", action="export")
        assert (200, whole[: len(whole) // 2]) == (answer.status_code, answer.content)

    async def test_rate(self, api: Api) -> None:
        """A rate without a mode makes that share of calls fail with 500."""
        await put(api.http, error_rate=0.5)
        statuses = {(await api.post("version")).status_code for _ in range(60)}
        assert {200, 500} == statuses

    async def test_ignored_filter(self, api: Api) -> None:
        """Mode ignore_filter exports the records that the filter should exclude."""
        await api.save({"record_id": "1", "userid": "u1"}, {"record_id": "2", "userid": "u2"})
        logic = "[userid] = 'u1'"
        assert 1 == len(await api.export(filterLogic=logic))
        await put(api.http, mode="ignore_filter")
        assert 2 == len(await api.export(filterLogic=logic))

    @pytest.mark.parametrize(
        "faults",
        [
            {"mode": "fire"},
            {"error_rate": 2},
            {"latency_ms": -1},
            {"latency_ms": "1"},
            {"x": 1},
            [],
        ],
    )
    async def test_bad_faults(self, api: Api, faults: object) -> None:
        """Unknown or out-of-range switches are rejected."""
        assert 400 == (await api.http.put("/_control/faults", json=faults)).status_code
