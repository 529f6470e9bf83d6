"""What may be written into REDCap's filter logic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from survey_svc.redcap.filter_logic import UnsafeValueError, is_one_of, may_be_email


class TestIsOneOf:
    def test_logic(self) -> None:
        """Several values become alternatives."""
        assert "[u] = 'a1' or [u] = 'b-2'" == is_one_of("u", ["a1", "b-2"])

    @pytest.mark.parametrize("value", ["", "a'b", 'a"b', "a b", "a]", "a#", "a\\", "a\n", "é"])
    def test_refuses(self, value: str) -> None:
        """A value that could end the text early, or be another one, is refused."""
        with pytest.raises(UnsafeValueError):
            is_one_of("u", [value])


class TestMayBeEmail:
    @pytest.mark.parametrize(
        ("email", "logic"),
        [
            ("Ada@Example.org", "lower([m]) = 'ada@example.org'"),
            ("o'brien@example.org", "ends_with(lower([m]), 'brien@example.org')"),
            ("a/b#c@example.org", "ends_with(lower([m]), 'c@example.org')"),
            ("no-address", ""),
            ('"a"@example.org', ""),
            ("a b@example.org", ""),
            ("a@example.org'", ""),
        ],
    )
    def test_logic(self, email: str, logic: str) -> None:
        """Only the allow-listed end of an address is written; impossible ones are not asked for."""
        assert logic == may_be_email("m", email)

    @given(st.text(max_size=60).map(lambda text: f"{text}@example.org"))
    def test_cannot_get_out(self, email: str) -> None:
        """Whatever the address, the logic has one text in quotes and nothing of it outside."""
        logic = may_be_email("m", email)

        assert logic == "" or (
            logic.count("'") == 2
            and logic.split("'")[0] in {"lower([m]) = ", "ends_with(lower([m]), "}
            and logic.split("'")[2] in {"", ")"}
        )
