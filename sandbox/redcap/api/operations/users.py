"""``content=user``: users and their rights."""

from typing import Any

from sandbox.redcap.api.changes import change, data_rows
from sandbox.redcap.api.checks import assign, must_exist, needed, without
from sandbox.redcap.api.operation import (
    EXPORT,
    USERS,
    Answer,
    Call,
    Operations,
    count_answer,
    rows_answer,
    with_right,
)
from sandbox.redcap.api.operations.form_rights import FORMS, form_rights, read_rights
from sandbox.redcap.design import rights
from sandbox.redcap.design.project import Project

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
_GIVEN = ("email", "firstname", "lastname", "expiration")


def export_users(call: Call) -> Answer:
    """List users with their rights; rights are integers."""
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
        row.update((key, form_rights(call, held.get(key))) for key in FORMS)
        rows.append(row)
    ordered = [{key: row[key] for key in (*_PERSON, *rights.NAMES, *FORMS)} for row in rows]
    return rows_answer(call, ordered, columns=(*_PERSON, *rights.NAMES, *FORMS))


def import_users(call: Call) -> Answer:
    """Add users or change the rights of known ones."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        users, group_of = dict(project.users), dict(project.group_of)
        for row in rows:
            name = needed(row, "username")
            users[name] = {**users.get(name, {}), **read_rights(row, project)}
            users[name] = {**users[name], **{k: row[k] for k in _GIVEN if row.get(k)}}
            if "data_access_group" in row:
                assign(group_of, name, row["data_access_group"], project.groups, "group")
        return project.replaced(users=users, group_of=group_of)

    change(call, edit, details="Import users")
    return count_answer(call, len(rows))


def delete_users(call: Call) -> Answer:
    """Remove users from the project."""
    names = call.params.items("users")
    must_exist("users", names, call.project.users)

    def edit(project: Project) -> Project:
        return project.replaced(
            users=without(project.users, names),
            role_of=without(project.role_of, names),
            group_of=without(project.group_of, names),
        )

    change(call, edit, details="Delete users")
    return count_answer(call, len(names))


OPERATIONS: Operations = {
    ("user", "export"): with_right(EXPORT, export_users),
    ("user", "import"): with_right(USERS, import_users),
    ("user", "delete"): with_right(USERS, delete_users),
}
