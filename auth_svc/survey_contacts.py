"""Looks up known addresses in REDCap, through Survey."""

import grpc
import structlog
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis.errors import UnavailableError, from_rpc_error

log = structlog.get_logger("contacts")


class SurveyContacts:
    """Contacts of REDCap; implements the port ``Contacts``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._survey = rpc.SurveyServiceStub(channel)

    async def find(self, email: str) -> str:
        """Return the user id that REDCap has for *email*; empty if it has none.

        Raises:
            UnavailableError: Survey or REDCap failed. Continuing could create a second
                identity for a known user.
        """
        try:
            answer = await self._survey.FindContact(pb.FindContactRequest(email=email))
        except grpc.aio.AioRpcError as exc:
            reason = from_rpc_error(exc).contract.name
            log.warning("contact look-up failed", reason=reason)
            raise UnavailableError(
                "The address cannot be looked up at the moment; try again later.",
                cause=reason,
            ) from exc
        return answer.user_id
