"""Access to ODM elements regardless of namespaces."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from sandbox.redcap.api.formats import parse_xml
from sandbox.redcap.errors import ApiError


def local(tag: str) -> str:
    """Return a name without its namespace."""
    return tag.rpartition("}")[2]


def parse(text: str) -> Element:
    """Parse an ODM document.

    Raises:
        ApiError: It is not valid XML, or not ODM.
    """
    root = parse_xml(text)
    if local(root.tag) != "ODM":
        raise ApiError(
            f"The XML is not a CDISC ODM document: its root element is <{local(root.tag)}>."
        )
    return root


def each(root: Element, name: str) -> Iterator[Element]:
    """Return every element with that local name below *root*, in document order."""
    return (element for element in root.iter() if local(str(element.tag)) == name)


def text_of(root: Element, name: str) -> str:
    """Return the text of the first element with that local name, or blank."""
    found = next(each(root, name), None)
    return (found.text or "").strip() if found is not None else ""


def attribute(element: Element, name: str, default: str = "") -> str:
    """Return an attribute, ignoring its namespace."""
    if name in element.attrib:
        return element.attrib[name]
    for key, value in element.attrib.items():
        if local(key) == name:
            return value
    return default
