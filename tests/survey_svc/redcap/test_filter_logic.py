"""Values in REDCap's filter logic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.chassis.errors import InvalidRequestError
from survey_svc.redcap.filter_logic import UnsafeValueError, is_email, is_one_of


class TestIsOneOf:
    def test_logic(self) -> None:
        """Several values become alternatives."""
        assert "[u] = 'a1' or [u] = 'b-2'" == is_one_of("u", ["a1", "b-2"])

    @pytest.mark.parametrize("value", ["", "a'b", 'a"b', "a b", "a]", "a#", "a\\", "a\n", "é"])
    def test_refuses(self, value: str) -> None:
        """A value that could end the string early, or change the logic, is rejected."""
        with pytest.raises(UnsafeValueError):
            is_one_of("u", [value])


class TestIsEmail:
    @pytest.mark.parametrize(
        ("email", "logic"),
        [
            ("Ada@Example.org", "lower([m]) = 'ada@example.org'"),
            ("'x'@example.org", "lower([m]) = \"'x'@example.org\""),
            ("o'brien@example.org", 'lower([m]) = "o\'brien@example.org"'),
            ("a/b#c@example.org", "lower([m]) = 'a/b#c@example.org'"),
            ("josé@example.org", "lower([m]) = 'josé@example.org'"),
            ("no-address", ""),
            ('"a"@example.org', ""),
            ("a b@example.org", ""),
            ("a@example.org'", 'lower([m]) = "a@example.org\'"'),
        ],
    )
    def test_logic(self, email: str, logic: str) -> None:
        """The whole address is compared, in the kind of quotes that it does not contain.

        Source:
            REDCap API 16.1.9, section 2.4: either quote, no escape character.
        """
        assert logic == is_email("m", email)

    @pytest.mark.parametrize("email", ["a\\b@x", "a[b@x", "a]b@x", f"{'a' * 254}@x", "a\u200e@x"])
    def test_refused(self, email: str) -> None:
        """An address that cannot be quoted safely is rejected before the call to REDCap."""
        with pytest.raises(InvalidRequestError):
            is_email("m", email)

    @given(st.text(max_size=60).map(lambda text: f"{text}@example.org"))
    def test_cannot_get_out(self, email: str) -> None:
        """For any address, the logic is one comparison with one quoted string."""
        try:
            logic = is_email("m", email)
        except InvalidRequestError:
            return
        if logic:
            start = "lower([m]) = "
            quote = logic[len(start)]
            assert logic.startswith(start)
            assert quote in "'\""
            assert 2 == logic.count(quote)
            assert logic.endswith(quote)
            assert email.lower() == logic[len(start) + 1 : -1]
