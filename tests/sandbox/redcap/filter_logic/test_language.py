"""The filter language: which rows match, and what is rejected before any row is read."""

import contextlib
import json
import re
import string
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.redcap.design.dictionary import Dictionary, Field
from sandbox.redcap.design.project import Event, Project
from sandbox.redcap.filter_logic import browser
from sandbox.redcap.filter_logic.browser import browser_logic
from sandbox.redcap.filter_logic.evaluate import Row, condition
from sandbox.redcap.filter_logic.functions import FUNCTIONS
from sandbox.redcap.filter_logic.nodes import Binary, Literal, Node, Ref, Unary
from sandbox.redcap.filter_logic.parser import MAX_DEPTH, LogicError, parse
from sandbox.redcap.filter_logic.prefilter import Required, required
from sandbox.redcap.records.storage import Answers, Place, Record


def field(name: str, kind: str = "text", choices: str = "") -> Field:
    """A field of the only form."""
    return Field(name, "f", field_type=kind, select_choices_or_calculations=choices)


PROJECT = Project(
    id=1,
    dictionary=Dictionary(
        [
            field("id"),
            field("a"),
            field("b"),
            field("day"),
            field("box", "checkbox", "1, One | x, Ex"),
            field("pick", "radio", "1, Red | 2, Blue"),
            field("doc", "file"),
        ]
    ),
    settings={"is_longitudinal": 1},
    events=(Event(1, "One", 1, "one_arm_1"), Event(2, "Two", 1, "two_arm_1")),
    mappings=frozenset({("one_arm_1", "f"), ("two_arm_1", "f")}),
    repeating={("two_arm_1", ""): ""},
)


FIRST = Place(1)


def row(answers: Answers | None = None) -> Row:
    """A row of a record with answers at its first event and two instances at its second."""
    entries: dict[Place, Answers] = {
        FIRST: answers or {},
        Place(2, "", 1): {"a": "first"},
        Place(2, "", 4): {"a": "fourth"},
    }
    return Row(Record("R-1", entries=entries), FIRST, "ada")


ROW = row(
    {
        "a": "5",
        "b": "Le Havre",
        "day": "2026-11-22",
        "box": ["1"],
        "pick": "2",
        "doc": {"doc": 3, "name": "cv.pdf"},
        "f_complete": "2",
    }
)


def holds(logic: str, at: Row = ROW) -> bool:
    """Whether *logic* matches."""
    return condition(logic, PROJECT)(at)


class TestTruth:
    @pytest.mark.parametrize(
        "logic",
        [
            "",
            "[a] = 5",
            "[a] == '5' and [b] <> \"\"",
            "[a]=1 OR [a]=5",
            "[a] = '05'",
            "[a] = '5.0'",
            "[b] = 'Le Havre'",
            "not [b] = 'le havre'",
            "[a] > 4 && [a] <= 5 || 1 = 2",
            "1 = 2 and 1 = 2 or 1 = 1",
            "[day] > '2026-01-31' and [day] < \"2027\"",
            "[box(1)] = '1' and [box(x)] = '0'",
            "[pick:label] = 'Blue'",
            "[doc] = 'cv.pdf'",
            "[f_complete] = 2",
            "[record-name] = 'R-1' and [user-name] = 'ada' and [id] = 'R-1'",
            "[one_arm_1][a] = 5",
            "[two_arm_1][a][4] = 'fourth'",
            "[two_arm_1][a][last-instance] = 'fourth'",
            "[two_arm_1][a][first-instance] = 'first'",
            "-[a] = 0 - 5",
            "2 + 3 * 2 ^ 2 - 4 / 2 = 12",
            "(2 + 3) * 2 = 10",
            "7 % 4 = 3",
            "0.1 + 0.2 = 0.3",
            "1 / 0 = ''",
            "[b] + 1 = ''",
            "[a] = 5 # and 1 = 2",
            "[a] = 5 // and 1 = 2\n and 1 = 1",
            "'12345678901234567890' <> '12345678901234567891'",
            "if([a] > 3, 'x', 'y') = 'x'",
            "true and not false",
        ],
    )
    def test_true(self, logic: str) -> None:
        """These match the row."""
        assert holds(logic)

    @pytest.mark.parametrize(
        "logic",
        [
            "[a] = ''",
            "[b] = 0",
            "![a]",
            "not [a]",
            "[a] < '10' and [b] = 'x'",
            "0",
            "''",
            "'0'",
            "[a] = 5 and 1 = 2",
        ],
    )
    def test_false(self, logic: str) -> None:
        """These do not match."""
        assert not holds(logic)

    def test_blank(self) -> None:
        """A field without an answer is blank; zero is not; a form not started is incomplete."""
        assert holds("[a] = '' and [box(1)] = '0' and [f_complete] = 0", row())
        assert not holds("[a] = ''", row({"a": "0"}))


class TestFunctions:
    @pytest.mark.parametrize(
        ("call", "value"),
        [
            ("isblankormissingcode('')", "1"),
            ("isblanknotmissingcode('x')", "0"),
            ("isnumber('1.5')", "1"),
            ("isinteger('1.0')", "0"),
            ("isinteger(12)", "1"),
            ("datediff('2026-01-01', '2026-01-31', 'd')", "30"),
            ("datediff('2026-01-31', '2026-01-01', 'd')", "30"),
            ("datediff('2026-01-31', '2026-01-01', 'd', true)", "0-30"),
            ("datediff('31-01-2026', '01-02-2026', 'd', 'dmy')", "1"),
            ("datediff('2026-01-01 00:00', '2026-01-01 01:30', 'm')", "90"),
            ("datediff('', '2026-01-31', 'd')", "''"),
            ("rounddown(datediff('2000-06-15', '2026-11-22', 'y'))", "26"),
            ("year([day])", "2026"),
            ("month([day]) + day([day])", "33"),
            ("age_at_date('2000-11-23', [day])", "25"),
            ("age_at_date('2000-11-22', [day])", "26"),
            ("round(2.345, 2)", "2.35"),
            ("round(0 - 2.5)", "0 - 3"),
            ("roundup(2.1)", "3"),
            ("rounddown(2.99, 1)", "2.9"),
            ("sqrt(16)", "4"),
            ("sqrt(0 - 1)", "''"),
            ("abs(0 - 3)", "3"),
            ("exponential(0)", "1"),
            ("round(log(100, 10), 6)", "2"),
            ("log(0)", "''"),
            ("mod(7, 3)", "1"),
            ("mod(7, 0)", "''"),
            ("min(3, '', 1)", "1"),
            ("max(3, 10, 1)", "10"),
            ("mean(1, 2, 6)", "3"),
            ("median(1, 9, 2)", "2"),
            ("sum(1, '', 2)", "3"),
            ("round(stdev(2, 4, 4, 4, 5, 5, 7, 9), 2)", "2.14"),
            ("stdev(2)", "''"),
            ("contains([b], 'havre')", "1"),
            ("not_contain([b], 'havre')", "0"),
            ("starts_with([b], 'LE')", "1"),
            ("ends_with([b], 'VRE')", "1"),
            ("find('h', [b])", "4"),
            ("find('z', [b])", "0"),
            ("left([b], 2)", "'Le'"),
            ("right([b], 5)", "'Havre'"),
            ("right([b], 0)", "''"),
            ("mid([b], 4, 3)", "'Hav'"),
            ("length([b])", "8"),
            ("trim('  x ')", "'x'"),
            ("upper('é')", "'É'"),
            ("lower('ABC')", "'abc'"),
            ("replace_text([b], 'Le ', '')", "'Havre'"),
            ("concat([b], '-', [a])", "'Le Havre-5'"),
            ("concat_ws(', ', 'x', '', 'y')", "'x, y'"),
        ],
    )
    def test_value(self, call: str, value: str) -> None:
        """Each function returns its expected value."""
        assert holds(f"{call} = {value}")

    def test_all_are_tried(self) -> None:
        """Every function has a test of its value."""
        source = Path(__file__).read_text(encoding="utf-8")
        assert [] == [name for name in FUNCTIONS if f"{name}(" not in source.replace("def ", "")]


class TestRefusals:
    @pytest.mark.parametrize(
        ("logic", "says"),
        [
            ("[a] = enrolled", "'enrolled' is neither quoted"),
            ('[a] = "x\\"y"', "Unable to find next token in: y"),
            ("[a] = 'x", "syntax error at character 7"),
            ("([a] = 1", "ends unexpectedly"),
            ("[a] =", "ends unexpectedly"),
            ("[a] = 1)", "Unable to find next token in: )"),
            ("[a] = 1 [b] = 2", "syntax error at character 9"),
            ("[a] ~ 1", "syntax error at character 5"),
            ("[]", "syntax error at character 1"),
            ("[a b]", "has no field name"),
            ("[nope] = 1", "The field 'nope'"),
            ("[nowhere][a] = 1", "The event 'nowhere'"),
            ("[box] = 1", "write [box(code)]"),
            ("[box(9)] = 1", "no choice '9'"),
            ("[a(1)] = 1", "is not a checkbox"),
            ("[a:shout] = 1", "':shout' is not supported"),
            ("ismissingcode([a])", "unknown function, 'ismissingcode'"),
            ("left('x')", "does not take 1 argument"),
            ("1 = 1 " + "or 1 = 1 " * 20_000, "longer than"),
            ("(" * 1_000 + "1" + ")" * 1_000 + " = (", "ends unexpectedly"),
            ("not " * (MAX_DEPTH + 1) + "1", "nested deeper"),
        ],
    )
    def test_says_why(self, logic: str, says: str) -> None:
        """Invalid logic and unknown names are rejected with reason and position."""
        with pytest.raises(LogicError) as ei:
            condition(logic, PROJECT)
        assert says in ei.value.message

    def test_long_chains_are_fine(self) -> None:
        """A long list of alternatives is not deeply nested."""
        assert holds(" or ".join(["1 = 2"] * 3_000 + ["1 = 1"]))


class TestPrefilter:
    @pytest.mark.parametrize(
        ("logic", "found"),
        [
            ("[a] = 'x'", ("a", "x")),
            ("'x' = [a] and [b] > 2", ("a", "x")),
            ("[b] > 2 and ([a] = 'x' and 1 = 1)", ("a", "x")),
            ("lower([a]) = 'x'", ("a", "x")),
            ("lower([a]) = 'é'", None),
            ("upper([a]) = 'X'", None),
            ("[a] = 'x' or [b] = 'y'", None),
            ("[a] = 'x' or 1 = 1", None),
            ("not ([a] = 'x')", None),
            ("[a] = '5'", None),
            ("[a] = ''", None),
            ("[box(x)] = '1'", None),
            ("[id] = 'R-1'", None),
            ("[pick:label] = 'Blue'", None),
            ("", None),
        ],
    )
    def test_what_must_be_there(self, logic: str, found: tuple[str, str] | None) -> None:
        """Only a text that every matching row contains is used for the index search."""
        wanted = Required(found[0], frozenset({found[1]})) if found else None
        assert wanted == required(logic, PROJECT)

    def test_alternatives(self) -> None:
        """Alternatives of one field become one requirement."""
        wanted = required("[a] = 'x' or [a] = 'y' or lower([a]) = 'z'", PROJECT)
        assert Required("a", frozenset("xyz")) == wanted


class TestBrowser:
    def test_partly_known(self) -> None:
        """Values that the page cannot change are substituted; the others remain conditions."""
        tree = browser_logic("[a] = 5 and [pick] = '2'", PROJECT, {"a"}, ROW)
        assert ["and", ["=", {"field": "a"}, "5"], True] == json.loads(tree)
        tree = browser_logic("[box(x)] = '1'", PROJECT, {"box"}, ROW)
        assert ["=", {"field": "box", "code": "x"}, "1"] == json.loads(tree)

    @pytest.mark.parametrize("logic", ["", "[b] = 'x'", "round([a]) = 5", "[two_arm_1][a] = 1"])
    def test_left_to_the_server(self, logic: str) -> None:
        """No logic is sent where the page cannot decide it or the script lacks a function."""
        assert "" == browser_logic(logic, PROJECT, {"a"}, ROW)

    def test_same_functions_in_the_script(self) -> None:
        """The page's script implements every function that is sent to it."""
        script = Path(browser.__file__).parents[1] / "pages" / "static" / "survey.js"
        known = set(re.findall(r'^  "?(\w+)"?: ', script.read_text(encoding="utf-8"), re.MULTILINE))
        assert set() == browser.IN_BROWSER - known


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="'\""), max_size=20)
NUMBERS = st.decimals(-1_000, 1_000, allow_nan=False, places=2)


def nodes() -> st.SearchStrategy[Node]:
    """Logic trees that are valid in the project."""
    leaves: st.SearchStrategy[Node] = st.one_of(
        TEXTS.map(Literal),
        st.integers(0, 999).map(lambda n: Literal(str(n))),
        st.sampled_from([Ref("a"), Ref("b"), Ref("box", "x"), Ref("a", event="one_arm_1")]),
    )
    operators = st.sampled_from(
        ["or", "and", "=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%"]
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(Binary, operators, inner, inner),
            st.builds(Unary, st.sampled_from(["not", "-"]), inner),
        ),
        max_leaves=12,
    )


def written(node: Node) -> str:
    """Logic as text with all optional brackets."""
    match node:
        case Literal(text=text):
            return f"'{text}'"
        case Ref(name=name, code=code, event=event):
            return (f"[{event}]" if event else "") + f"[{name}{f'({code})' if code else ''}]"
        case Unary(operator=operator, operand=operand):
            return f"({operator} ({written(operand)}))"
        case Binary(operator=operator, left=left, right=right):
            return f"(({written(left)}) {operator} ({written(right)}))"
        case _:
            raise AssertionError(node)


class TestProperties:
    @given(nodes())
    def test_text_and_tree(self, node: Node) -> None:
        """A tree written as text parses to the same tree and evaluates without an error."""
        assert node == parse(written(node))
        assert holds(written(node)) in {True, False}

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Any text either parses or is rejected; nothing else happens."""
        with contextlib.suppress(LogicError):
            holds(text)

    @given(st.text(st.sampled_from(list("[ab]()'\"=<>!andornot 05+-#/^")), max_size=40))
    def test_any_shuffle(self, text: str) -> None:
        """The same holds for tokens of the language in any order."""
        with contextlib.suppress(LogicError):
            holds(text)

    @given(TEXTS, TEXTS)
    def test_equality_of_texts(self, left: str, right: str) -> None:
        """Texts that are not numbers are equal if they are identical."""
        marked = f"x{left}", f"x{right}"
        assert (marked[0] == marked[1]) == holds(f"'{marked[0]}' = '{marked[1]}'")

    @given(NUMBERS, NUMBERS)
    def test_order_of_numbers(self, left: Decimal, right: Decimal) -> None:
        """Numbers compare as numbers in any notation."""
        assert (left < right) == holds(f"'{left}' < '{right}'")
        assert (left == right) == holds(f"'{left}' = '{right}'")
        assert (left >= right) == holds(f"'{left}' >= '{right}'")

    @given(nodes(), nodes())
    def test_de_morgan(self, left: Node, right: Node) -> None:
        """Not both is the same as either one not."""
        both, one, other = written(Binary("and", left, right)), written(left), written(right)
        assert holds(f"not {both}") == holds(f"(not ({one})) or (not ({other}))")

    @given(st.text(string.ascii_letters + " -'é", min_size=1, max_size=12))
    def test_sieve_never_hides(self, text: str) -> None:
        """A matching row contains the text that the index searches for."""
        quote = '"' if "'" in text else "'"
        logic = f"[a] = {quote}{text}{quote} and 1 = 1"
        wanted = required(logic, PROJECT)
        at = row({"a": text})
        assert holds(logic, at)
        assert wanted is None or at.record.answers(Place(1))[wanted.field] in wanted.texts
