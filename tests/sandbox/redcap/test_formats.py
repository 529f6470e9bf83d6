"""Serialization: what is written can be read, by the sandbox and by other readers."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.redcap.api.formats import csv_line, read_rows, write_rows
from sandbox.redcap.api.params import Format, Params
from sandbox.redcap.errors import ApiError
from sandbox.redcap.records.storage import sort_key
from sandbox.redcap.surveys.markup import plain, safe
from tests.sandbox.redcap.conftest import Api

ANY = st.text(max_size=30)
XML_TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"
    ),
    max_size=30,
)
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=30)


class TestCsv:
    @given(st.lists(ANY, min_size=1), st.sampled_from([",", ";", "\t", "|", "^"]))
    def test_line(self, values: list[str], delimiter: str) -> None:
        """Python's csv reader returns the values that the line was written from."""
        line = csv_line(values, delimiter)
        read = list(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter))
        assert [values] == (read if values != [""] else [[""]])

    @pytest.mark.parametrize(
        ("value", "written"),
        [("a", "a"), ("a b", '"a b"'), ("a,b", '"a,b"'), ('"', '""""'), ("é", "é"), ("-", "-")],
    )
    def test_quoting(self, value: str, written: str) -> None:
        """Values are quoted only where necessary, as in REDCap."""
        assert f"{written}\n" == csv_line([value])


class TestRoundTrips:
    @pytest.mark.parametrize("shape", ["json", "csv", "xml"])
    @given(values=st.lists(st.tuples(XML_TEXT, XML_TEXT), max_size=5))
    def test_rows(self, shape: Format, values: list[tuple[str, str]]) -> None:
        """Rows are read as they were written, in every format."""
        rows = [{"a": first, "b": second} for first, second in values]
        text = "".join(write_rows(rows, shape, columns=("a", "b")))
        assert rows == read_rows(text, shape)

    @given(ANY)
    def test_control_characters_stay_out_of_xml(self, value: str) -> None:
        """The XML is well-formed for any value."""
        text = "".join(write_rows([{"a": value}], "xml", columns=("a",)))
        assert 1 == len(read_rows(text, "xml"))

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(values=st.lists(LINES, min_size=1, max_size=4))
    async def test_import_and_export(self, api: Api, values: list[str]) -> None:
        """Imported text is exported unchanged, as JSON and csv, and can be imported again."""
        rows: list[dict[str, Any]] = [
            {"record_id": str(n), "demandeur_nom": value} for n, value in enumerate(values)
        ]
        await api.save(*rows, overwriteBehavior="overwrite")
        wanted = ["record_id", "demandeur_nom"]
        exported = await api.export(fields=wanted, records=[row["record_id"] for row in rows])
        assert rows == exported
        text = await api.text("record", format="csv", fields=wanted)
        before = await api.export()
        await api.text("record", format="csv", data=text, overwriteBehavior="overwrite")
        assert before == await api.export()


class TestParams:
    @given(st.lists(st.tuples(ANY, ANY)))
    def test_any_form(self, items: list[tuple[str, str]]) -> None:
        """Any parameters are parsed without an error."""
        params = Params(items)
        assert params.return_format in {"json", "csv", "xml"}
        assert isinstance(params.action, str)

    @pytest.mark.parametrize(
        ("value", "flag"),
        [
            ("true", True),
            ("True", True),
            ("1", True),
            ("false", False),
            ("False", False),
            ("0", False),
        ],
    )
    def test_flags(self, value: str, flag: bool) -> None:
        """Booleans in the notations of JavaScript, PHP and Python."""
        assert flag is Params([("x", value)]).flag("x", default=not flag)


class TestNaturalOrder:
    @given(st.integers(0, 10**12), st.integers(0, 10**12))
    def test_numbers(self, left: int, right: int) -> None:
        """Names that are numbers are sorted as numbers."""
        assert (left < right) == (sort_key(str(left)) < sort_key(str(right)))


class TestMarkup:
    @pytest.mark.parametrize(
        ("html", "left"),
        [
            ("<p onclick=x>a</p>", "<p>a</p>"),
            ("<script>alert(1)</script>b", "b"),
            ('<a href="javascript:x">c</a>', "<a>c</a>"),
            ('<a href="https://example.org">d</a>', '<a href="https://example.org">d</a>'),
            ("<img src=x onerror=y>1 < 2 & 3", "1 &lt; 2 &amp; 3"),
        ],
    )
    def test_harmless(self, html: str, left: str) -> None:
        """Only harmless markup remains."""
        assert left == safe(html)

    @given(ANY)
    def test_text_stays(self, text: str) -> None:
        """No script survives sanitizing, and the plain text stays readable."""
        assert "<script" not in safe(f"<b>{text}</b>").lower()
        assert isinstance(plain(text), str)


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        ("1.0", "1"),
        ("9.0", "9"),
        ("-0.5", "-0.5"),
        ("22.0", "22"),
        ("0.1", "0.1"),
        ("1E400", "INF"),
        ("-1E400", "-INF"),
        ("1e15", "1.0E+15"),
        ("1.5e-7", "1.5E-7"),
        ("3.14159265358979", "3.1415926535898"),
        ("9007199254740993", "9007199254740993"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "9.2233720368548E+18"),
        ("12345678901234567890", "1.2345678901235E+19"),
        ("1" * 400, "INF"),
    ],
)
def test_json_numbers(literal: str, text: str) -> None:
    """Numbers of JSON become the text that PHP's json_decode and cast produce.

    Source:
        PHP manual, json_decode and "Converting to string"; precision is 14.
    """
    assert [{"a": text}] == read_rows(f'[{{"a": {literal}}}]', "json")


@pytest.mark.parametrize(
    "literal",
    ["NaN", "Infinity", "-Infinity", "[NaN]", r'"a\ud83dz"', r'"\udc00"', r'{"\ud83d": 1}'],
)
def test_not_json(literal: str) -> None:
    """Neither NaN nor a lone surrogate is JSON for PHP (RFC 8259, section 6; JSON_ERROR_UTF16)."""
    with pytest.raises(ApiError):
        read_rows(f'[{{"a": {literal}}}]', "json")


def test_json_of_odd_values() -> None:
    """Numbers, booleans and null of JSON are read as text."""
    data = json.dumps([{"a": 1, "b": 1.5, "c": True, "d": None, "e": [1]}])
    assert [{"a": "1", "b": "1.5", "c": "1", "d": "", "e": "[1]"}] == read_rows(data, "json")
