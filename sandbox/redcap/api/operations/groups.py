"""``content=dag`` and ``userDagMapping``: data access groups and their members."""

from collections.abc import Iterable

from sandbox.redcap.api.changes import change, data_rows
from sandbox.redcap.api.checks import assign, must_exist, needed, without
from sandbox.redcap.api.operation import (
    EXPORT,
    GROUPS,
    Answer,
    Call,
    Operations,
    count_answer,
    plain,
    rows_answer,
    with_right,
)
from sandbox.redcap.design.names import unique_group_name
from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError


def export_groups(call: Call) -> Answer:
    """List data access groups."""
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
            label = needed(row, "data_access_group_name")
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
    """Delete groups; their records and users then belong to no group."""
    names = call.params.items("dags")
    must_exist("dags", names, call.project.groups)

    def edit(project: Project) -> Project:
        left = {user: group for user, group in project.group_of.items() if group not in names}
        return project.replaced(groups=without(project.groups, names), group_of=left)

    change(call, edit, details="Delete data access groups")
    return count_answer(call, len(names))


def switch_group(call: Call) -> Answer:
    """Move the caller to another group."""
    wanted = call.params.needed("dag")
    must_exist("dag", [wanted], call.project.groups)
    change(
        call,
        lambda p: p.replaced(group_of={**p.group_of, call.username: wanted}),
        details="Switch data access group",
    )
    return plain("1")


def export_group_mapping(call: Call) -> Answer:
    """List the group of each user."""
    rows = [
        {"username": name, "redcap_data_access_group": call.project.group_of.get(name, "")}
        for name in call.project.users
    ]
    return rows_answer(call, rows, columns=("username", "redcap_data_access_group"))


def import_group_mapping(call: Call) -> Answer:
    """Assign users to groups, or remove them from theirs."""
    rows = data_rows(call)

    def edit(project: Project) -> Project:
        group_of = dict(project.group_of)
        for row in rows:
            name = needed(row, "username")
            must_exist("username", [name], project.users)
            wanted = row.get("redcap_data_access_group", "")
            assign(group_of, name, wanted, project.groups, "group")
        return project.replaced(group_of=group_of)

    change(call, edit, details="Import user group assignments")
    return count_answer(call, len(rows))


def _free(name: str, taken: Iterable[str]) -> str:
    """Return *name*, with a letter appended if it is taken."""
    known = set(taken)
    candidates = (name, *(f"{name}{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"))
    for candidate in candidates:
        if candidate not in known:
            return candidate
    raise ApiError(f"There are too many groups named '{name}'.")


OPERATIONS: Operations = {
    ("dag", "export"): with_right(EXPORT, export_groups),
    ("dag", "import"): with_right(GROUPS, import_groups),
    ("dag", "delete"): with_right(GROUPS, delete_groups),
    ("dag", "switch"): with_right(EXPORT, switch_group),
    ("userDagMapping", "export"): with_right(EXPORT, export_group_mapping),
    ("userDagMapping", "import"): with_right(GROUPS, import_group_mapping),
}
