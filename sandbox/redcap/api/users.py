"""
``user``, ``userRole``, ``userRoleMapping``, ``dag``, ``userDagMapping``.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sandbox.redcap import rights
from sandbox.redcap.api.changes import change, data_rows
from sandbox.redcap.api.operation import (
    EXPORT,
    Answer,
    Call,
    Operation,
    Operations,
    count_answer,
    plain,
    rows_answer,
    with_right,
)
from sandbox.redcap.errors import ApiError
from sandbox.redcap.names import unique_group_name, unique_role_name
from sandbox.redcap.project import Project

_PERSON = (
    "username",
    "email",
    "firstname",
    "lastname",
    "expiration",
    "data_access_group",
    "data_access_group_id",
    "data_access_group_label",
)
_FORMS = ("forms", "forms_export")
_GIVEN = ("email", "firstname", "lastname", "expiration")


def export_users(call: Call) -> Answer:
    """Users with their rights; the rights are integers."""
    project = call.project
    rows = []
    for name in project.users:
        held = project.rights_of(name)
        group = project.group_of.get(name, "")
        number, label = project.groups.get(group, ("", ""))
        person = {key: str(project.users[name].get(key, "")) for key in _GIVEN}
        row: dict[str, Any] = {
            "username": name,
            **person,
            "email": person["email"] or f"{name}@example.org",
            "data_access_group": group,
            "data_access_group_id": number,
            "data_access_group_label": label,
        }
        row.update((right, int(held.get(right, 0) or 0)) for right in rights.NAMES)
        row.update((key, _form_rights(call, held.get(key))) for key in _FORMS)
        rows.append(row)
    ordered = [{key: row[key] for key in (*_PERSON, *rights.NAMES, *_FORMS)} for row in rows]
    return rows_answer(call, ordered, columns=(*_PERSON, *rights.NAMES, *_FORMS))


def import_users(call: Call) -> Answer:
    """Add users or change the rights of known ones."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        users, group_of = dict(project.users), dict(project.group_of)
        for row in rows:
            name = _needed(row, "username")
            users[name] = {**users.get(name, {}), **_rights(row, project)}
            users[name] = {**users[name], **{k: row[k] for k in _GIVEN if row.get(k)}}
            if "data_access_group" in row:
                _assign(group_of, name, row["data_access_group"], project.groups, "group")
        return project.replaced(users=users, group_of=group_of)

    change(call, edit, details="Import users")
    return count_answer(call, len(rows))


def delete_users(call: Call) -> Answer:
    """Take users out of the project."""
    names = call.params.items("users")
    _must_exist("users", names, call.project.users)

    def edit(project: Project) -> Project:
        return project.replaced(
            users=_without(project.users, names),
            role_of=_without(project.role_of, names),
            group_of=_without(project.group_of, names),
        )

    change(call, edit, details="Delete users")
    return count_answer(call, len(names))


def export_roles(call: Call) -> Answer:
    """Roles; their rights are texts."""
    columns = ("unique_role_name", "role_label", *rights.NAMES, *_FORMS)
    rows = []
    for name, role in call.project.roles.items():
        row: dict[str, Any] = {
            "unique_role_name": name,
            "role_label": str(role.get("role_label", "")),
        }
        row.update((right, str(role.get(right, 0) or 0)) for right in rights.NAMES)
        row.update((key, _form_rights(call, role.get(key))) for key in _FORMS)
        rows.append(row)
    return rows_answer(call, rows, columns=columns)


def import_roles(call: Call) -> Answer:
    """Add roles or change known ones."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        roles = dict(project.roles)
        for row in rows:
            name = row.get("unique_role_name", "").strip()
            if name and name not in roles:
                raise ApiError(f"The role '{name}' does not exist in the project.")
            label = row.get("role_label", "").strip()
            if not name and not label:
                raise ApiError("A new role needs a role_label.")
            name = name or unique_role_name()
            roles[name] = {**roles.get(name, {}), **_rights(row, project)}
            if label:
                roles[name] = {**roles[name], "role_label": label}
        return project.replaced(roles=roles)

    change(call, edit, details="Import user roles")
    return count_answer(call, len(rows))


def delete_roles(call: Call) -> Answer:
    """Delete roles; who had one keeps rights of their own."""
    names = call.params.items("roles")
    _must_exist("roles", names, call.project.roles)

    def edit(project: Project) -> Project:
        left = {user: role for user, role in project.role_of.items() if role not in names}
        return project.replaced(roles=_without(project.roles, names), role_of=left)

    change(call, edit, details="Delete user roles")
    return count_answer(call, len(names))


def export_role_mapping(call: Call) -> Answer:
    """Which user has which role."""
    columns = ("username", "unique_role_name", "data_access_group")
    rows = [
        {
            "username": name,
            "unique_role_name": call.project.role_of.get(name, ""),
            "data_access_group": call.project.group_of.get(name, ""),
        }
        for name in call.project.users
    ]
    return rows_answer(call, rows, columns=columns)


def import_role_mapping(call: Call) -> Answer:
    """Give users roles, or none."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        role_of = dict(project.role_of)
        for row in rows:
            name = _needed(row, "username")
            _must_exist("username", [name], project.users)
            _assign(role_of, name, row.get("unique_role_name", ""), project.roles, "role")
        return project.replaced(role_of=role_of)

    change(call, edit, details="Import user role assignments")
    return count_answer(call, len(rows))


def export_groups(call: Call) -> Answer:
    """Data access groups."""
    columns = ("data_access_group_name", "unique_group_name", "data_access_group_id")
    rows = [
        {
            "data_access_group_name": label,
            "unique_group_name": name,
            "data_access_group_id": number,
        }
        for name, (number, label) in call.project.groups.items()
    ]
    return rows_answer(call, rows, columns=columns)


def import_groups(call: Call) -> Answer:
    """Add groups or rename known ones."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        groups = dict(project.groups)
        following = max((number for number, _ in groups.values()), default=0) + 1
        for row in rows:
            label = _needed(row, "data_access_group_name")
            name = row.get("unique_group_name", "").strip()
            if name and name not in groups:
                raise ApiError(f"The group '{name}' does not exist in the project.")
            if name:
                groups[name] = (groups[name][0], label)
                continue
            groups[_free(unique_group_name(label), groups)] = (following, label)
            following += 1
        return project.replaced(groups=groups)

    change(call, edit, details="Import data access groups")
    return count_answer(call, len(rows))


def delete_groups(call: Call) -> Answer:
    """Delete groups; their records and users are then in none."""
    names = call.params.items("dags")
    _must_exist("dags", names, call.project.groups)

    def edit(project: Project) -> Project:
        left = {user: group for user, group in project.group_of.items() if group not in names}
        return project.replaced(groups=_without(project.groups, names), group_of=left)

    change(call, edit, details="Delete data access groups")
    return count_answer(call, len(names))


def switch_group(call: Call) -> Answer:
    """Put the caller into another group."""
    wanted = call.params.needed("dag")
    _must_exist("dag", [wanted], call.project.groups)
    change(
        call,
        lambda p: p.replaced(group_of={**p.group_of, call.username: wanted}),
        details="Switch data access group",
    )
    return plain("1")


def export_group_mapping(call: Call) -> Answer:
    """Which user is in which group."""
    rows = [
        {"username": name, "redcap_data_access_group": call.project.group_of.get(name, "")}
        for name in call.project.users
    ]
    return rows_answer(call, rows, columns=("username", "redcap_data_access_group"))


def import_group_mapping(call: Call) -> Answer:
    """Put users into groups, or into none."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        group_of = dict(project.group_of)
        for row in rows:
            name = _needed(row, "username")
            _must_exist("username", [name], project.users)
            wanted = row.get("redcap_data_access_group", "")
            _assign(group_of, name, wanted, project.groups, "group")
        return project.replaced(group_of=group_of)

    change(call, edit, details="Import user group assignments")
    return count_answer(call, len(rows))


def _form_rights(call: Call, stored: object) -> Any:
    forms = call.project.dictionary.forms
    held = stored if isinstance(stored, Mapping) else {}
    found = {form: int(held.get(form, 1)) for form in forms}
    if call.params.format == "csv":
        return ",".join(f"{form}:{right}" for form, right in found.items())
    return found


def _rights(row: Mapping[str, str], project: Project) -> dict[str, Any]:
    """The rights that a row names; a blank leaves what was there."""
    found: dict[str, Any] = {}
    for name in rights.NAMES:
        text = row.get(name, "").strip()
        if text and not text.isdecimal():
            raise ApiError(f"The right '{name}' is a whole number, not '{text}'.")
        if text:
            found[name] = int(text)
    for key in _FORMS:
        if row.get(key):
            found[key] = _read_form_rights(row[key], project)
    return found


def _read_form_rights(text: str, project: Project) -> dict[str, int]:
    if text.lstrip().startswith("{"):
        pairs: Iterable[tuple[str, Any]] = json.loads(text).items()
    else:
        pairs = [(form, right) for form, _, right in (p.partition(":") for p in text.split(","))]
    found = {form.strip(): str(right).strip() for form, right in pairs}
    _must_exist("forms", found, project.dictionary.forms)
    if not all(right.isdecimal() for right in found.values()):
        raise ApiError("Form rights are whole numbers, as in 'form_1:1,form_2:0'.")
    return {form: int(right) for form, right in found.items()}


def _assign(
    mapping: dict[str, str], user: str, wanted: str, known: Iterable[str], what: str
) -> None:
    wanted = wanted.strip()
    if not wanted:
        mapping.pop(user, None)
    elif wanted in set(known):
        mapping[user] = wanted
    else:
        raise ApiError(f"The {what} '{wanted}' does not exist in the project.")


def _needed(row: Mapping[str, str], key: str) -> str:
    value = row.get(key, "").strip()
    if not value:
        raise ApiError(f"Every row needs '{key}'.")
    return value


def _must_exist(parameter: str, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        quoted = ", ".join(f"'{name}'" for name in unknown)
        raise ApiError(f'These values of "{parameter}" do not exist in the project: {quoted}')


def _without(mapping: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    gone = set(names)
    return {key: value for key, value in mapping.items() if key not in gone}


def _free(name: str, taken: Iterable[str]) -> str:
    """*name*, or with a letter after it when it is taken."""
    known = set(taken)
    candidates = (name, *(f"{name}{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"))
    for candidate in candidates:
        if candidate not in known:
            return candidate
    raise ApiError(f"There are too many groups called '{name}'.")


def _managed(run: Callable[[Call], Answer]) -> Operation:
    return Operation(run, "user_rights", "User Rights")


def _grouped(run: Callable[[Call], Answer]) -> Operation:
    return Operation(run, "data_access_groups", "Data Access Groups")


OPERATIONS: Operations = {
    ("user", "export"): with_right(EXPORT, export_users),
    ("user", "import"): _managed(import_users),
    ("user", "delete"): _managed(delete_users),
    ("userRole", "export"): with_right(EXPORT, export_roles),
    ("userRole", "import"): _managed(import_roles),
    ("userRole", "delete"): _managed(delete_roles),
    ("userRoleMapping", "export"): with_right(EXPORT, export_role_mapping),
    ("userRoleMapping", "import"): _managed(import_role_mapping),
    ("dag", "export"): with_right(EXPORT, export_groups),
    ("dag", "import"): _grouped(import_groups),
    ("dag", "delete"): _grouped(delete_groups),
    ("dag", "switch"): with_right(EXPORT, switch_group),
    ("userDagMapping", "export"): with_right(EXPORT, export_group_mapping),
    ("userDagMapping", "import"): _grouped(import_group_mapping),
}
