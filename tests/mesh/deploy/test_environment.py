"""The variables that production declares are known to the programs."""

import json
from pathlib import Path

import pytest

from auth_svc.config import AuthSettings
from gateway.config import GatewaySettings
from health_svc.config import HealthSettings
from mesh.chassis.config import SECRETS_DIR, MeshSettings, load
from mesh.render.compose.workloads import place as compose_place
from mesh.render.environment import Place, environment, secret_files
from mesh.render.kubernetes.workloads import place as kubernetes_place
from survey_svc.config import SurveySettings
from tests.mesh.deploy.containers import load as load_deployment

DEPLOYED = load_deployment()
SETTINGS: dict[str, type[MeshSettings]] = {
    "auth": AuthSettings,
    "gateway": GatewaySettings,
    "health": HealthSettings,
    "survey": SurveySettings,
}
PLACES = {"kubernetes": kubernetes_place(DEPLOYED), "compose": compose_place()}
SECRET_TEXTS = {
    "amarre_auth_database": "postgresql+asyncpg://auth:x@postgres/auth",
    "amarre_survey_store": "postgresql+asyncpg://survey:x@postgres/survey",
    "amarre_survey_cache": "redis://:x@redis:6379/0",
}
SHARED = {"AMARRE_ALLOWED_EMAIL_DOMAINS"}
"""Stated for every workload, read by those that it concerns."""
cases = pytest.mark.parametrize(
    ("name", "place"),
    [pytest.param(n, p, id=f"{n} on {where}") for where, p in PLACES.items() for n in SETTINGS],
)


def declared(name: str, place: Place) -> dict[str, str]:
    return environment(DEPLOYED, DEPLOYED.workload(name), place)


@cases
def test_every_variable_is_known(name: str, place: Place) -> None:
    """
    No variable is misspelt: each is a setting of its program.
    """
    known = {f"AMARRE_{field.upper()}" for field in SETTINGS[name].model_fields}
    stated = {v for v in declared(name, place) if v.startswith("AMARRE_")}

    assert set() == stated - known - SHARED - {SECRETS_DIR}


@cases
def test_settings_are_accepted(
    name: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With its secrets as files, each program accepts its environment.
    """
    for file in secret_files(name):
        (tmp_path / file).write_text(SECRET_TEXTS.get(file, "x"))
        (tmp_path / file).chmod(0o600)
    for variable, value in declared(name, place).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path))

    settings = load(SETTINGS[name])

    assert "production" == settings.env
    assert "sidecar" == settings.transport
    assert set(settings.peers) == {w.name for w in DEPLOYED.callees(name)}


def test_secrets_stay_out_of_the_environment() -> None:
    """
    Files of secrets are not also variables.
    """
    for place in PLACES.values():
        for name in SETTINGS:
            stated = {variable.lower() for variable in declared(name, place)}
            assert set() == stated & set(secret_files(name))


def test_identities_on_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The caller identities that a program on Kubernetes expects are those of the pods.
    """
    for variable, value in declared("health", PLACES["kubernetes"]).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv(SECRETS_DIR)
    settings = load(HealthSettings)

    assert {w.name: w.spiffe_id for w in DEPLOYED.workloads} == {
        w.name: str(settings.identity(w.name)) for w in DEPLOYED.workloads
    }
    assert {"auth": "amarre-auth", "survey": "amarre-surveys"} == json.loads(
        declared("health", PLACES["kubernetes"])["AMARRE_NAMESPACES"]
    )
