"""Built-in functions of the logic language.

Text functions ignore case; numeric functions return a blank for other input.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, ROUND_UP, Decimal

from sandbox.redcap.filter_logic.values import BLANK, Value, is_true, to_number, to_text

MAX_DIGITS = 20
"""Range of decimal places for rounding."""


@dataclass(frozen=True)
class Function:
    """A function and its number of arguments; *most* is None if unlimited."""

    body: Callable[[Sequence[Value]], Value]
    least: int
    most: int | None


def _numeric(body: Callable[..., Value]) -> Callable[[Sequence[Value]], Value]:
    """Wrap a numeric function to return a blank if an argument is not a number."""

    def guarded(arguments: Sequence[Value]) -> Value:
        numbers = [to_number(argument) for argument in arguments]
        return BLANK if None in numbers else body(*numbers)

    return guarded


def _over(body: Callable[[list[Decimal]], Decimal], least: int = 1) -> Function:
    """Apply a function to the numeric arguments; return a blank if there are too few."""

    def over_numbers(arguments: Sequence[Value]) -> Value:
        numbers = [n for n in map(to_number, arguments) if n is not None]
        return body(numbers) if len(numbers) >= least else BLANK

    return Function(over_numbers, 1, None)


def _textual(body: Callable[..., Value]) -> Callable[[Sequence[Value]], Value]:
    return lambda arguments: body(*map(to_text, arguments))


def _caseless(body: Callable[[str, str], bool]) -> Function:
    return Function(
        lambda a: body(to_text(a[0]).casefold(), to_text(a[1]).casefold()), least=2, most=2
    )


def _rounding(mode: str) -> Function:
    def rounded(number: Decimal, places: Decimal = Decimal(0)) -> Value:
        digits = max(-MAX_DIGITS, min(MAX_DIGITS, int(places)))
        return number.quantize(Decimal(1).scaleb(-digits), rounding=mode)

    return Function(_numeric(rounded), 1, 2)


def _logarithm(number: Decimal, base: Decimal | None = None) -> Value:
    if number <= 0 or (base is not None and (base <= 0 or base == 1)):
        return BLANK
    return number.ln() if base is None else number.ln() / base.ln()


def _length_of(number: Value) -> int:
    found = to_number(number)
    return max(0, int(found)) if found is not None else 0


def _mid(arguments: Sequence[Value]) -> Value:
    start = max(1, _length_of(arguments[1])) - 1
    return to_text(arguments[0])[start : start + _length_of(arguments[2])]


def _right(arguments: Sequence[Value]) -> Value:
    text, count = to_text(arguments[0]), _length_of(arguments[1])
    return text[-count:] if count else BLANK


def _replace(text: str, search: str, replacement: str) -> Value:
    return text.replace(search, replacement) if search else text


_DATE_FORMATS = {
    "ymd": ("%Y-%m-%d", "%Y/%m/%d"),
    "mdy": ("%m-%d-%Y", "%m/%d/%Y"),
    "dmy": ("%d-%m-%Y", "%d/%m/%Y"),
}
_TIMES = ("", " %H:%M", " %H:%M:%S")


def parse_moment(text: str, order: str = "ymd") -> datetime | None:
    """Parse a date with or without time, or ``today`` or ``now``; None if invalid."""
    if text == "now":
        return datetime.now(UTC).replace(tzinfo=None)
    if text == "today":
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    for day in (*_DATE_FORMATS.get(order, ()), *_DATE_FORMATS["ymd"]):
        for time in _TIMES:
            try:
                # A study's dates have no time zone: they are only compared with each other.
                return datetime.strptime(text.strip().replace("T", " "), day + time)  # noqa: DTZ007
            except ValueError:
                continue
    return None


_SECONDS = {
    "y": Decimal("31556952"),
    "M": Decimal("2630016"),
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
}


def _datediff(arguments: Sequence[Value]) -> Value:
    first, second, unit, *options = map(to_text, arguments)
    order = next((o.lower() for o in options if o.lower() in _DATE_FORMATS), "ymd")
    signed = any(option.lower() in {"1", "true"} for option in options)
    begin, end = parse_moment(first, order), parse_moment(second, order)
    if begin is None or end is None or unit not in _SECONDS:
        return BLANK
    seconds = Decimal(str((end - begin).total_seconds()))
    return (seconds if signed else abs(seconds)) / _SECONDS[unit]


def _part(attribute: str) -> Function:
    def part(arguments: Sequence[Value]) -> Value:
        moment = parse_moment(to_text(arguments[0]))
        return BLANK if moment is None else Decimal(int(getattr(moment, attribute)))

    return Function(part, 1, 1)


def _age(arguments: Sequence[Value]) -> Value:
    born, at = parse_moment(to_text(arguments[0])), parse_moment(to_text(arguments[1]))
    if born is None or at is None or at < born:
        return BLANK
    before_birthday = date(4, at.month, at.day) < date(4, born.month, born.day)
    return Decimal(at.year - born.year - before_birthday)


def _integer(value: Value) -> bool:
    number = to_number(value)
    return number is not None and "." not in to_text(value)


MISSING_CODE_TESTS: dict[str, Callable[[str, frozenset[str]], bool]] = {
    "isblankormissingcode": lambda text, codes: text == BLANK or text in codes,
    "isblanknotmissingcode": lambda text, _: text == BLANK,
}
"""Functions of one answer that depend on the project's missing data codes."""

FUNCTIONS: dict[str, Function] = {
    "if": Function(lambda a: a[1] if is_true(a[0]) else a[2], 3, 3),
    **dict.fromkeys(MISSING_CODE_TESTS, Function(lambda a: a[0] == BLANK, 1, 1)),
    "isnumber": Function(lambda a: to_number(a[0]) is not None, 1, 1),
    "isinteger": Function(lambda a: _integer(a[0]), 1, 1),
    "datediff": Function(_datediff, 3, 5),
    "year": _part("year"),
    "month": _part("month"),
    "day": _part("day"),
    "age_at_date": Function(_age, 2, 2),
    "round": _rounding(ROUND_HALF_UP),
    "roundup": _rounding(ROUND_UP),
    "rounddown": _rounding(ROUND_DOWN),
    "sqrt": Function(_numeric(lambda n: n.sqrt() if n >= 0 else BLANK), 1, 1),
    "abs": Function(_numeric(abs), 1, 1),
    "exponential": Function(_numeric(lambda n: n.exp()), 1, 1),
    "log": Function(_numeric(_logarithm), 1, 2),
    "mod": Function(_numeric(lambda n, by: n % by), 2, 2),
    "min": _over(min),
    "max": _over(max),
    "mean": _over(statistics.mean),
    "median": _over(statistics.median),
    "sum": _over(lambda numbers: sum(numbers, Decimal(0))),
    "stdev": _over(statistics.stdev, least=2),
    "contains": _caseless(lambda text, part: part in text),
    "not_contain": _caseless(lambda text, part: part not in text),
    "starts_with": _caseless(str.startswith),
    "ends_with": _caseless(str.endswith),
    "find": Function(
        lambda a: Decimal(to_text(a[1]).casefold().find(to_text(a[0]).casefold()) + 1), 2, 2
    ),
    "left": Function(lambda a: to_text(a[0])[: _length_of(a[1])], 2, 2),
    "right": Function(_right, 2, 2),
    "mid": Function(_mid, 3, 3),
    "length": Function(_textual(lambda text: Decimal(len(text))), 1, 1),
    "trim": Function(_textual(str.strip), 1, 1),
    "upper": Function(_textual(str.upper), 1, 1),
    "lower": Function(_textual(str.lower), 1, 1),
    "replace_text": Function(_textual(_replace), 3, 3),
    "concat": Function(lambda a: "".join(map(to_text, a)), 1, None),
    "concat_ws": Function(lambda a: to_text(a[0]).join(filter(None, map(to_text, a[1:]))), 2, None),
}
