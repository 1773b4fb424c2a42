"""CloudEvents over HTTP. The only module that knows the cloudevents SDK.

In binary mode, which ours have, each attribute is a header and the data is the body. That is read and written here:
by the SDK a job would take 0.2 ms longer. Structured mode is for the SDK to read.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from collections.abc import Mapping
from typing import NamedTuple

from cloudevents.conversion import to_binary
from cloudevents.exceptions import GenericException
from cloudevents.http import from_http

from knative_jobs.runtime.errors import InvalidError

_REQUIRED = ("specversion", "id", "source", "type")


class Event(NamedTuple):
    """An event."""

    attributes: Mapping[str, str]
    """By their names, `datacontenttype` and `specversion` among them."""
    data: bytes

    def headers(self) -> dict[str, str]:
        """Return the headers of the event in binary mode; its data is the body."""
        headers = {f"ce-{name}": value for name, value in self.attributes.items()}
        if content_type := headers.pop("ce-datacontenttype", ""):
            headers["content-type"] = content_type
        return headers


def read(headers: Mapping[str, str], body: bytes) -> Event:
    """Return the event in a message, which may have binary or structured mode.

    Raises:
        InvalidError: there is none.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    if lowered.get("content-type", "").startswith("application/cloudevents+json"):
        try:
            lowered, body = to_binary(from_http(lowered, body))
        except (GenericException, ValueError, TypeError) as error:
            raise InvalidError(f"This is no CloudEvent: {error}") from error
    attributes = {name[3:]: str(value) for name, value in lowered.items() if name.startswith("ce-")}
    if content_type := lowered.get("content-type"):
        attributes["datacontenttype"] = content_type
    if missing := [name for name in _REQUIRED if not attributes.get(name)]:
        raise InvalidError(f"This is no CloudEvent: {', '.join(missing)} missing")
    return Event(attributes, body or b"")  # the SDK has None for no data
