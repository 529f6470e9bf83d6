"""
A mesh with an additional service, as a contributor would add it: a contract and a line of topology.
"""

import functools

from amarre.mesh.v1 import policy_pb2 as pb
from google.protobuf import descriptor_pb2, descriptor_pool

from mesh import topology
from mesh.contract import policy
from mesh.contract.policy import Mesh
from mesh.render import deployment
from mesh.render.deployment import Deployment
from mesh.topology import Kind, Probe, Process

NAME = "notes"
PROCESS = Process(
    name=NAME,
    kind=Kind.SERVICE,
    module="notes_svc",
    port=5,
    probe=Probe.GRPC,
    probe_path="amarre.notes.v1.NotesService",
    identity=NAME,
    metrics=54,
    admin=34,
)


@functools.cache
def contract() -> Mesh:
    """The contracts, and that of a service that reads notes for the gateway."""
    file = descriptor_pb2.FileDescriptorProto(
        name="amarre/notes/v1/notes_service.proto",
        package="amarre.notes.v1",
        syntax="proto3",
        dependency=["amarre/mesh/v1/policy.proto"],
    )
    for message in ("ReadNoteRequest", "ReadNoteResponse"):
        file.message_type.add(name=message)
    service = file.service.add(name="NotesService")
    limits = service.options.Extensions[pb.service_policy]
    limits.max_concurrent_requests, limits.max_pending_requests = 40, 20
    limits.outlier.consecutive_failures = 7
    limits.outlier.interval.seconds = limits.outlier.base_ejection_time.seconds = 3
    limits.outlier.max_ejection_percent = 34
    method = service.method.add(
        name="ReadNote",
        input_type=".amarre.notes.v1.ReadNoteRequest",
        output_type=".amarre.notes.v1.ReadNoteResponse",
    )
    method.options.idempotency_level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    rules = method.options.Extensions[pb.policy]
    rules.callers.append("gateway")
    rules.deadline.seconds = 4
    rules.session = pb.SESSION_RULE_NONE
    rules.objective.availability = 0.99
    rules.objective.latency.seconds = 1
    pool = descriptor_pool.Default()
    added = pool.AddSerializedFile(file.SerializeToString())
    present = policy.load()
    return Mesh(present.services + policy.read([added]).services)


def deployed() -> Deployment:
    """Return the deployment."""
    return deployment.load(contract(), (*topology.PROCESSES, PROCESS))
