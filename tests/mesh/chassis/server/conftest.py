"""A running server with a minimal Survey service."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis.testing import served
from tests.mesh.chassis.server.surveys import KEY, Surveys, make_surveys


@pytest.fixture
def surveys() -> Surveys:
    return make_surveys()


@pytest.fixture
async def port(surveys: Surveys, svids: Path) -> AsyncIterator[int]:
    def register(server: Any) -> None:
        rpc.add_SurveyServiceServicer_to_server(surveys, server)

    async with served(register, svids / "survey", audience="survey", key=KEY) as bound:
        yield bound
