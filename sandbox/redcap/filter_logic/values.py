"""Values of the logic language: text, numbers and booleans, and their conversions."""

import re
from decimal import Decimal

Value = str | Decimal | bool
"""Text as stored, a computed number, or the result of a comparison."""

BLANK = ""
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)\s*", re.ASCII)


def to_number(value: Value) -> Decimal | None:
    """Convert *value* to a number; None if it is not one, or blank."""
    match value:
        case bool():
            return Decimal(int(value))
        case Decimal():
            return value
        case _:
            return Decimal(value.strip()) if _NUMBER.fullmatch(value) else None


def to_text(value: Value) -> str:
    """Return *value* in stored form: the number ``1.50`` becomes ``1.5``, true becomes ``1``."""
    match value:
        case bool():
            return str(int(value))
        case Decimal():
            text = f"{value:f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
        case _:
            return value


def is_true(value: Value) -> bool:
    """Return whether a condition is true: anything except blank and zero."""
    if isinstance(value, bool):
        return value
    number = to_number(value)
    return number != 0 if number is not None else value != BLANK


def compare(operator: str, left: Value, right: Value) -> bool:
    """Compare as numbers if both sides are numbers, else as case-sensitive text."""
    numbers = to_number(left), to_number(right)
    if numbers[0] is not None and numbers[1] is not None:
        return _holds(operator, (numbers[0] > numbers[1]) - (numbers[0] < numbers[1]))
    texts = to_text(left), to_text(right)
    return _holds(operator, (texts[0] > texts[1]) - (texts[0] < texts[1]))


def _holds(operator: str, order: int) -> bool:
    match operator:
        case "=":
            return order == 0
        case "<>":
            return order != 0
        case "<":
            return order < 0
        case "<=":
            return order <= 0
        case ">":
            return order > 0
        case _:
            return order >= 0
