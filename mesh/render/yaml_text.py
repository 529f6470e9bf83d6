"""
YAML output: stable bytes, comments, and no scalars that YAML 1.1 misinterprets.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

COMMENT = "#"
"""Key whose value becomes a comment above the other keys of its dictionary."""

_COMMENT_LINE = re.compile(r"^(?P<indent> *(?:- )*)'#': (?P<text>.*)$", re.MULTILINE)


class _Dumper(yaml.SafeDumper):
    """Dumper with block style, indented lists and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002 - PyYAML's signature
        super().increase_indent(flow, indentless=False)


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML does not quote y and n, which other YAML 1.1 parsers read as booleans.
    style = "'" if value.lower() in {"y", "n"} else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _string)


def document(title: str, content: Mapping[str, Any]) -> str:
    """Return *content* as YAML below a comment that describes it."""
    dumped = yaml.dump(
        dict(content), Dumper=_Dumper, sort_keys=False, width=1_000_000, allow_unicode=True
    )
    head = "".join(f"# {line}\n" for line in title.split("\n"))
    return head + _COMMENT_LINE.sub(_as_comment, dumped)


def _as_comment(found: re.Match[str]) -> str:
    text = yaml.safe_load(found["text"])
    return f"{found['indent']}# {text}"
