"""
Generate Python from the contracts: messages, stubs, their types, and the descriptor image.

Run as ``python protos/generate.py`` or by the build of the wheel. Nothing of others is copied
into the repository: ``google/api`` and ``google/rpc`` come from googleapis-common-protos,
``buf/validate`` from the descriptor that protovalidate carries.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
GENERATED = PROTOS / "gen"
IMAGE = "amarre/contract.binpb"
"""Every contract with its comments, as a FileDescriptorSet; what renderers read."""


class GenerationError(Exception):
    """The compiler refused the contracts; it has printed why."""


def generate(target: Path) -> None:
    """
    Write the generated packages ``amarre`` and ``buf`` below *target*, replacing them.

    Raises:
        GenerationError: A contract does not compile.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        fresh = Path(scratch)
        contracts = sorted(
            p.relative_to(PROTOS).as_posix() for p in PROTOS.glob("amarre/**/*.proto")
        )
        validate = fresh / "validate.binpb"
        validate.write_bytes(_validate_descriptors())
        out = fresh / "out"
        (out / "amarre").mkdir(parents=True)
        python = [
            f"--python_out={out}",
            f"--mypy_out=quiet,readable_stubs:{out}",
        ]
        _protoc([f"--descriptor_set_in={validate}", *python, "buf/validate/validate.proto"])
        _protoc(
            [
                f"--descriptor_set_in={validate}",
                *_includes(),
                *python,
                f"--grpc_python_out={out}",
                f"--mypy_grpc_out=quiet,generate_concrete_servicer_stubs:{out}",
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={out / IMAGE}",
                *contracts,
            ]
        )
        _make_packages(out)
        _replace(target, out, old=fresh)


def _validate_descriptors() -> bytes:
    from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
    from protovalidate._gen.buf.validate import validate_pb

    files = descriptor_pb2.FileDescriptorSet()
    for known in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        known.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.append(
        descriptor_pb2.FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    )
    return files.SerializeToString()


def _includes() -> list[str]:
    import google.api.annotations_pb2

    installed = Path(google.api.annotations_pb2.__file__).parents[2]
    well_known = resources.files("grpc_tools") / "_proto"
    return [f"-I{PROTOS}", f"-I{installed}", f"-I{well_known}"]


def _protoc(arguments: Sequence[str]) -> None:
    from grpc_tools import protoc

    # protoc finds its mypy plug-ins beside the interpreter, whether or not PATH names that folder.
    plugins = [
        f"--plugin=protoc-gen-{name}={found}"
        for name in ("mypy", "mypy_grpc")
        if (found := shutil.which(f"protoc-gen-{name}", path=str(Path(sys.executable).parent)))
    ]
    if protoc.main(["protoc", *plugins, *arguments]) != 0:
        raise GenerationError("The contracts do not compile; see the messages above.")


def _make_packages(out: Path) -> None:
    for folder in [p for p in out.rglob("*") if p.is_dir()]:
        (folder / "__init__.py").touch()
    for package in out.iterdir():
        (package / "py.typed").touch()


def _replace(target: Path, out: Path, *, old: Path) -> None:
    """Rename: a process that imports meanwhile finds the old code or the new."""
    for package in out.iterdir():
        present = target / package.name
        if present.exists():
            present.rename(old / package.name)
        package.rename(present)


def write_baseline(generated: Path) -> None:
    """Keep the present contracts, without comments, as what later changes must not break."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    image = FileDescriptorSet.FromString((generated / IMAGE).read_bytes())
    for file in image.file:
        file.ClearField("source_code_info")
    (PROTOS / "baseline.binpb").write_bytes(image.SerializeToString(deterministic=True))


if __name__ == "__main__":
    try:
        generate(GENERATED)
    except GenerationError as error:
        sys.exit(str(error))
    if "--baseline" in sys.argv:
        write_baseline(GENERATED)
