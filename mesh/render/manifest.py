"""Kubernetes resources as YAML: one per file, comment first, deterministic."""

import textwrap
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import yaml

from mesh.render.deployment import RenderError

WIDTH = 100
Resource = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Block style with indented lists, no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002 - PyYAML's signature
        super().increase_indent(flow=flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def text(comment: str, resource: Mapping[str, Any]) -> str:
    """Return *resource* as YAML after *comment*, which becomes ``#`` lines."""
    lines = "".join(f"# {line}\n" for part in comment.split("\n") for line in _wrapped(part))
    body = yaml.dump(dict(resource), Dumper=_Dumper, sort_keys=False, width=10_000)
    return f"{lines}{body}"


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line,
        WIDTH - 2,
        subsequent_indent=f"{indent}  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )


def resource(kind: str, name: str, namespace: str = "", **rest: Any) -> Resource:
    """Return a resource; *kind* is ``apiVersion Kind``, e.g. ``v1 Service``."""
    api_version, _, kind = kind.rpartition(" ")
    metadata: Resource = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata |= rest.pop("metadata", {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def duration(time: timedelta) -> str:
    """Return *time* with its unit: ``2s``, ``250ms``."""
    milliseconds = round(time.total_seconds() * 1000)
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"


class Files(dict[str, str]):
    """Files by relative path, without duplicates."""

    def add(self, path: str, comment: str, content: Mapping[str, Any]) -> None:
        """
        Add *content* as YAML.

        Raises:
            RenderError: *path* exists already.
        """
        if path in self:
            raise RenderError(f"Two resources have the same file {path}; their names must differ.")
        self[path] = text(comment, content)


def kustomization(*, component: bool = False, **fields: Any) -> Resource:
    """Return a kustomization, or a component of one, with *fields*."""
    version = "v1alpha1" if component else "v1beta1"
    return {
        "apiVersion": f"kustomize.config.k8s.io/{version}",
        "kind": "Component" if component else "Kustomization",
        **fields,
    }


def inline(content: Any) -> str:
    """Return *content* as YAML text for embedding in another file."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000)
