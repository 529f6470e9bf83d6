"""A Survey service that is ready and fails every call: a bad canary."""

from typing import Any

from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis import config, server
from mesh.chassis.config import MeshSettings
from mesh.chassis.errors import MeshError


class FailingSurveys(rpc.SurveyServiceServicer):
    """Returns INTERNAL."""

    async def ListRequests(self, request: Any, context: Any) -> Any:
        raise MeshError("This version is broken.")


async def main(settings: MeshSettings) -> None:
    """Serve until stopped."""

    def register(to: Any) -> None:
        failing = FailingSurveys()
        rpc.add_SurveyServiceServicer_to_server(failing, to)

    await server.serve("survey", settings, register)


if __name__ == "__main__":
    loaded = config.load_or_exit(MeshSettings)
    server.run(lambda: main(loaded), "survey", loaded)
