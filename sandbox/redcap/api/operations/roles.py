"""``content=userRole`` and ``userRoleMapping``: user roles and their members."""

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
from sandbox.redcap.design.names import unique_role_name
from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError


def export_roles(call: Call) -> Answer:
    """List roles; their rights are strings."""
    columns = ("unique_role_name", "role_label", *rights.NAMES, *FORMS)
    rows = []
    for name, role in call.project.roles.items():
        row: dict[str, Any] = {
            "unique_role_name": name,
            "role_label": str(role.get("role_label", "")),
        }
        row.update((right, str(role.get(right, 0) or 0)) for right in rights.NAMES)
        row.update((key, form_rights(call, role.get(key))) for key in FORMS)
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
                raise ApiError("A new role requires a role_label.")
            name = name or unique_role_name()
            roles[name] = {**roles.get(name, {}), **read_rights(row, project)}
            if label:
                roles[name] = {**roles[name], "role_label": label}
        return project.replaced(roles=roles)

    change(call, edit, details="Import user roles")
    return count_answer(call, len(rows))


def delete_roles(call: Call) -> Answer:
    """Delete roles; their members keep their individual rights."""
    names = call.params.items("roles")
    must_exist("roles", names, call.project.roles)

    def edit(project: Project) -> Project:
        left = {user: role for user, role in project.role_of.items() if role not in names}
        return project.replaced(roles=without(project.roles, names), role_of=left)

    change(call, edit, details="Delete user roles")
    return count_answer(call, len(names))


def export_role_mapping(call: Call) -> Answer:
    """List the role of each user."""
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
    """Assign roles to users, or remove them."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        role_of = dict(project.role_of)
        for row in rows:
            name = needed(row, "username")
            must_exist("username", [name], project.users)
            assign(role_of, name, row.get("unique_role_name", ""), project.roles, "role")
        return project.replaced(role_of=role_of)

    change(call, edit, details="Import user role assignments")
    return count_answer(call, len(rows))


OPERATIONS: Operations = {
    ("userRole", "export"): with_right(EXPORT, export_roles),
    ("userRole", "import"): with_right(USERS, import_roles),
    ("userRole", "delete"): with_right(USERS, delete_roles),
    ("userRoleMapping", "export"): with_right(EXPORT, export_role_mapping),
    ("userRoleMapping", "import"): with_right(USERS, import_role_mapping),
}
