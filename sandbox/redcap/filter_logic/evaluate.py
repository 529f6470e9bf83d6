"""Evaluation of logic for one row of a record.

:func:`compile_logic` checks the tree against a project first, so that an unknown
field or function is reported before any record is read; the returned function
never raises.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, DecimalException

from sandbox.redcap.design.dictionary import STATUS_OPTIONS, Field
from sandbox.redcap.design.project import Event, Project
from sandbox.redcap.filter_logic.functions import FUNCTIONS, MISSING_CODE_TESTS
from sandbox.redcap.filter_logic.nodes import Binary, Call, Literal, Node, Ref, Unary
from sandbox.redcap.filter_logic.parser import LogicError, parse
from sandbox.redcap.filter_logic.values import BLANK, Value, compare, is_true, to_number, to_text
from sandbox.redcap.records.storage import Answer, Place, Record


@dataclass(frozen=True)
class Row:
    """Evaluation context: a record, a place in it, and the user."""

    record: Record
    place: Place
    username: str = ""


Compiled = Callable[[Row], Value]
Condition = Callable[[Row], bool]

_SMART: dict[str, Compiled] = {
    "record-name": lambda row: row.record.name,
    "user-name": lambda row: row.username,
    "current-instance": lambda row: str(row.place.instance),
}


def condition(text: str, project: Project) -> Condition:
    """Compile logic into a predicate of rows; blank logic is always true.

    Raises:
        LogicError: The text is not valid logic, or refers to something unknown.
    """
    if not text.strip():
        return lambda row: True
    compiled = compile_logic(parse(text), project)
    return lambda row: is_true(compiled(row))


def compile_logic(node: Node, project: Project) -> Compiled:
    """Compile a tree into a function of a row.

    Raises:
        LogicError: It refers to an unknown field, choice, event or function.
    """
    match node:
        case Literal(text=text):
            return lambda row: text
        case Ref():
            return _reference(node, project)
        case Unary(operator="not", operand=operand):
            inner = compile_logic(operand, project)
            return lambda row: not is_true(inner(row))
        case Unary(operand=operand):
            return _arithmetic("-", lambda row: "0", compile_logic(operand, project))
        case Binary(operator=operator, left=left, right=right):
            return _binary(operator, compile_logic(left, project), compile_logic(right, project))
        case Call():
            return _call(node, project)


def _binary(operator: str, left: Compiled, right: Compiled) -> Compiled:
    match operator:
        case "or":
            return lambda row: is_true(left(row)) or is_true(right(row))
        case "and":
            return lambda row: is_true(left(row)) and is_true(right(row))
        case "+" | "-" | "*" | "/" | "%" | "^":
            return _arithmetic(operator, left, right)
        case _:
            return lambda row: compare(operator, left(row), right(row))


_SUMS: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": lambda a, b: a % b,
    "^": lambda a, b: a**b,
}


def _arithmetic(operator: str, left: Compiled, right: Compiled) -> Compiled:
    def compute(row: Row) -> Value:
        numbers = to_number(left(row)), to_number(right(row))
        if numbers[0] is None or numbers[1] is None:
            return BLANK
        try:
            return _SUMS[operator](numbers[0], numbers[1])
        except DecimalException:
            return BLANK

    return compute


def _call(node: Call, project: Project) -> Compiled:
    function = FUNCTIONS.get(node.name)
    if function is None:
        raise LogicError(f"The logic calls an unknown function, '{node.name}'.")
    count = len(node.arguments)
    if count < function.least or (function.most is not None and count > function.most):
        raise LogicError(f"The function '{node.name}' does not take {count} argument(s).")
    arguments = [compile_logic(argument, project) for argument in node.arguments]
    if node.name in MISSING_CODE_TESTS:
        holds, codes = MISSING_CODE_TESTS[node.name], frozenset(project.missing_data_codes)
        return lambda row: holds(to_text(arguments[0](row)), codes)

    def compute(row: Row) -> Value:
        try:
            return function.body([argument(row) for argument in arguments])
        except (DecimalException, OverflowError):
            return BLANK

    return compute


def _reference(ref: Ref, project: Project) -> Compiled:
    if ref.name in _SMART:
        return _SMART[ref.name]
    dictionary = project.dictionary
    form = dictionary.form_of(ref.name)
    if form is None:
        raise LogicError(f"The field '{ref.name}' in the logic does not exist in the project.")
    event = _event(ref, project)
    field = dictionary.by_name.get(ref.name)
    read = _reader(ref, field)
    if ref.name == dictionary.record_id:
        return lambda row: row.record.name
    locate = locator(project, form, event=event, instance=ref.instance)
    name = ref.name
    if field is None:
        return lambda row: read(row.record.answers(locate(row)).get(name) or "0")
    return lambda row: read(row.record.answers(locate(row)).get(name, BLANK))


def _event(ref: Ref, project: Project) -> Event | None:
    if not ref.event:
        return None
    if ref.event not in project.event_by_name:
        raise LogicError(f"The event '{ref.event}' in the logic does not exist in the project.")
    return project.event_by_name[ref.event]


def _reader(ref: Ref, field: Field | None) -> Callable[[Answer], Value]:
    """Return a function from the stored answer to the value of *ref*."""
    options = STATUS_OPTIONS if field is None else field.options
    if field is not None and field.is_checkbox:
        if ref.code not in field.options:
            raise LogicError(
                f"The checkbox '{ref.name}' has no choice '{ref.code}'; write [{ref.name}(code)]."
            )
        return lambda answer: "1" if ref.code in answer else "0"
    if ref.code:
        raise LogicError(f"The field '{ref.name}' is not a checkbox and has no codes.")
    if ref.modifier not in {"", "value", "label"}:
        raise LogicError(f"The modifier ':{ref.modifier}' is not supported.")
    if ref.modifier == "label":
        return lambda answer: options.get(str(answer), str(answer))
    return lambda answer: str(answer["name"]) if isinstance(answer, dict) else str(answer)


def locator(
    project: Project, form: str, *, event: Event | None = None, instance: str = ""
) -> Callable[[Row], Place]:
    """Return where the answers of *form* are stored, relative to a row."""
    if not project.repeating and event is None:
        return lambda row: Place(row.place.event_id)

    def locate(row: Row) -> Place:
        at = event or project.event_by_id[row.place.event_id]
        if project.repeats_form(at, form):
            same = row.place.instrument == form
            return Place(at.event_id, form, _instance(row, at, form, instance, same=same))
        if project.repeats_event(at):
            same = row.place.event_id == at.event_id
            return Place(at.event_id, "", _instance(row, at, "", instance, same=same))
        return Place(at.event_id)

    return locate


def _instance(row: Row, event: Event, instrument: str, wanted: str, *, same: bool) -> int:
    if wanted.isdigit():
        return int(wanted)
    if wanted in {"", "current-instance"}:
        return row.place.instance if same else 1
    known = [p.instance for p in row.record.entries if p[:2] == (event.event_id, instrument)]
    return (max if wanted == "last-instance" else min)(known, default=1)
