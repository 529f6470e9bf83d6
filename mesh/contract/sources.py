"""The generated contracts, with the comment and the line of each element."""

import functools
from collections.abc import Iterator, Mapping
from importlib import resources

from google.protobuf import descriptor_pb2


def areas(module: str) -> tuple[str, ...]:
    """
    Return the areas (``amarre.AREA.v1``) whose generated code has a given module, sorted.

    Args:
        module: The file name; ``{area}`` is replaced by the area.
    """
    packages = resources.files("amarre").iterdir()
    found = (p.name for p in packages if (p / "v1" / module.format(area=p.name)).is_file())
    return tuple(sorted(found))


@functools.cache
def image() -> descriptor_pb2.FileDescriptorSet:
    """Return every contract with its comments, from the compiler's descriptor set."""
    data = resources.files("amarre").joinpath("contract.binpb").read_bytes()
    return descriptor_pb2.FileDescriptorSet.FromString(data)


def comment(full_name: str) -> str:
    """Return the comment above an element of the contracts; empty if it has none."""
    return _locations().get(full_name, ("", ""))[0]


def source(full_name: str) -> str:
    """Return the location of an element, ``file.proto:LINE``; its name if unknown."""
    return _locations().get(full_name, ("", full_name))[1]


@functools.cache
def _locations() -> Mapping[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for file in image().file:
        names = dict(_named_paths(file))
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name:
                text = "\n".join(
                    line.removeprefix(" ")
                    for line in location.leading_comments.rstrip().split("\n")
                )
                found[name] = (text, f"{file.name}:{location.span[0] + 1}")
    return found


def _named_paths(
    file: descriptor_pb2.FileDescriptorProto,
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the source info path and the full name of each element."""
    for s, service in enumerate(file.service):
        yield (6, s), f"{file.package}.{service.name}"
        for m, method in enumerate(service.method):
            yield (6, s, 2, m), f"{file.package}.{service.name}.{method.name}"
    for e, enum in enumerate(file.enum_type):
        yield (5, e), f"{file.package}.{enum.name}"
        for v, value in enumerate(enum.value):
            yield (5, e, 2, v), f"{file.package}.{enum.name}.{value.name}"
    for i, message in enumerate(file.message_type):
        yield from _message_paths((4, i), f"{file.package}.{message.name}", message)


def _message_paths(
    path: tuple[int, ...], name: str, message: descriptor_pb2.DescriptorProto
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, name
    for f, field in enumerate(message.field):
        yield (*path, 2, f), f"{name}.{field.name}"
    for n, nested in enumerate(message.nested_type):
        yield from _message_paths((*path, 3, n), f"{name}.{nested.name}", nested)
