"""Generation of grpc-gateway from the contracts."""

from google.protobuf import descriptor_pb2

from benchmarks.sides.grpc_gateway import packages


def test_packages() -> None:
    """Each contract gets a package of its own folder; Google's keep theirs."""
    names = ("google/api/annotations.proto", "amarre/auth/v1/auth.proto")
    files = [descriptor_pb2.FileDescriptorProto(name=name) for name in names]

    found = packages(descriptor_pb2.FileDescriptorSet(file=files))

    assert {"amarre/auth/v1/auth.proto": "benchmarks/gen/amarre/auth/v1"} == found
