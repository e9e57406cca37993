"""Requests and replies without the web server, and the XML of both."""

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from xml.etree import ElementTree as ET

import orjson

from vector_assets.local.maxcompute.refusal import Refusal, invalid


@dataclass(frozen=True)
class Request:
    """One request. `query` keeps bare keys (`?downloads`) with an empty value; header names are in small letters."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    target: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            Refusal: it is none.
        """
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise invalid(f"the body is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise invalid("the body is no JSON object")
        return found

    def xml(self) -> ET.Element:
        """The body's root element.

        Raises:
            Refusal: it is no XML.
        """
        try:
            return ET.fromstring(self.body)
        except ET.ParseError as error:
            raise Refusal(400, "InvalidArgument", f"the body is no XML: {error}") from error

    def number(self, name: str, default: int) -> int:
        """A whole number in the query.

        Raises:
            Refusal: it is none.
        """
        text = self.query.get(name, "")
        try:
            return int(text) if text else default
        except ValueError:
            raise invalid(f"{name}={text} is no number") from None


@dataclass
class Reply:
    """One answer; `body` may come in pieces."""

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    media: str = "text/plain"


def json_reply(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer in JSON."""
    return Reply(orjson.dumps(content), status, dict(headers or {}), "application/json")


def xml_reply(root: ET.Element, headers: Mapping[str, str] | None = None, status: int = 200) -> Reply:
    """An answer in XML."""
    body = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return Reply(body, status, dict(headers or {}), "application/xml")


def element(name: str, *children: ET.Element, **texts: object) -> ET.Element:
    """An element with children, then one child per keyword."""
    root = ET.Element(name)
    root.extend(children)
    for key, value in texts.items():
        ET.SubElement(root, key).text = _clean(str(value))
    return root


def _clean(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(sign for sign in text if sign >= " " or sign in "\t\n\r")


def refusal_reply(refusal: Refusal) -> Reply:
    """An error body as every service of MaxCompute has it."""
    root = element(
        "Error", Code=refusal.code, Message=str(refusal), RequestId=uuid.uuid4().hex.upper(), HostId="vector-assets"
    )
    return xml_reply(root, refusal.headers, refusal.status)


def date(seconds: float) -> str:
    """RFC 822 in GMT."""
    return formatdate(seconds, usegmt=True)


def now() -> float:
    """Seconds since 1970."""
    return time.time()
