"""The how-to page's sections on stopping, upgrades, backups and profiles."""

import re
from typing import Any

import pytest

from tests.integration.researcher import Researcher
from tests.production.containers.researchers import is_returning, is_signed_in
from tests.production.containers.stack import (
    BACK_UP,
    RESTORE,
    ROLL_BACK,
    STOP,
    UPGRADE,
    Stack,
    documented,
    until,
)

NEWER = "0.1.1"
"""The version after this one, whose migration a test adds."""
MIGRATION = """
\"\"\"A table that only the version after this one knows.\"\"\"

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{down}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("of_the_next_version", sa.Column("id", sa.Integer, primary_key=True))


def downgrade() -> None:
    op.drop_table("of_the_next_version")
"""
EXTRA = ("otel-collector", "jaeger")
"""Services of the profile telemetry whose images can be built here."""


def test_down_and_up(stack: Stack, ready: dict[str, Any], ada: Researcher) -> None:
    """
    `down` and `up` keep users, sessions and requests.
    """
    for line in documented(STOP):
        stack.line(line)

    until("an answer", lambda: is_returning(ready, ada))


def tables(stack: Stack) -> set[str]:
    """Return the tables of Auth's database."""
    query = "select table_name from information_schema.tables where table_schema = 'public'"
    psql = ["psql", "--username", "postgres", "--dbname", "auth", "-Atc", query]
    return set(stack.compose("exec", "-T", "postgres", *psql).split())


def test_upgrade_and_back(stack: Stack, ready: dict[str, Any], ada: Researcher) -> None:
    """
    A new version migrates its database at startup; the rollback reverts the schema; data is kept.
    """
    site = stack.folder / "site.env"
    versions = stack.tree / "auth_svc/migrations/versions"
    newest = max(versions.glob("m0*.py")).name[1:5]
    added = versions / "m9999_next.py"
    previous = site.read_text()

    added.write_text(MIGRATION.replace("{down}", newest))
    site.write_text(re.sub(r"(?m)^AMARRE_VERSION=.*", f"AMARRE_VERSION={NEWER}", previous))
    for line in documented(UPGRADE):
        stack.line(line)

    assert stack.containers()["auth"]["Config"]["Image"].endswith(f":{NEWER}")
    assert "of_the_next_version" in tables(stack)
    until("an answer", lambda: is_returning(ready, ada))

    back, *rest = documented(ROLL_BACK)
    stack.line(back.replace("REVISION", newest))
    site.write_text(previous)
    for line in rest:
        stack.line(line)

    assert "of_the_next_version" not in tables(stack)
    assert not stack.containers()["auth"]["Config"]["Image"].endswith(f":{NEWER}")
    assert {} == stack.unwell()
    until("an answer", lambda: is_returning(ready, ada))


def test_backup_and_restore(stack: Stack, ready: dict[str, Any], ada: Researcher) -> None:
    """
    A restore brings back exactly the contents of the archive, into empty databases.
    """
    for line in documented(BACK_UP):
        stack.line(line)
    with Researcher(ready, "grace.hopper@example.org") as later:
        until("a sign-in", lambda: is_signed_in(later))

        for line in documented(RESTORE):
            stack.line(line)

        until("an answer", lambda: is_returning(ready, ada))
        until(
            "the end of the later session",
            lambda: 401 == later.send("GET", "/api/v1/me").status_code,
        )


def test_telemetry_profile(stack: Stack) -> None:
    """
    Collector and Jaeger of the profile telemetry start with writable volumes.
    """
    images = stack.run(["docker", "images", "--format", "{{.Repository}}"]).split()
    if not any(image.endswith("/jaeger") for image in images):
        pytest.skip("the programs of telemetry are not on this machine: see AMARRE_PROGRAMS")
    stack.compose("--profile", "telemetry", "up", "--detach", "--wait", *EXTRA)

    assert not {name for name in EXTRA if stack.containers()[name]["RestartCount"]}
    assert {"running"} == {stack.containers()[name]["State"]["Status"] for name in EXTRA}
