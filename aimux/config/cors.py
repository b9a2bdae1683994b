"""The section `cors` of the configuration."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from aimux.config.problems import wrong
from aimux.config.sections import Section

_ORIGIN = re.compile(r"(?:[a-z][a-z0-9+.-]*)://[a-z0-9._~%\[\]:-]+")


def _origin(value: Any) -> str:
    """`https://app.example.com`, as a browser writes it, or `*`."""
    text = value.strip().lower() if isinstance(value, str) else ""
    if text in {"*", "file://"}:  # the latter of desktop apps that are pages on the disk
        return text
    text = text.rstrip("/")
    if not _ORIGIN.fullmatch(text):
        remedy = (
            "write it like https://app.example.com, without a path; * is every page, with those whose origin is null"
        )
        raise wrong("is not an origin", remedy)
    return text


Origin = Annotated[str, PlainValidator(_origin, json_schema_input_type=str)]


class Cors(Section):
    """Requests from web pages of other sites."""

    allowed_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Origins of pages whose scripts may call the mounts, with a token as everybody: "
        "`https://app.example.com`, `app://obsidian.md`, or `*` for all. The log names those that "
        "ask and may not. None: a browser lets no page of another site call.",
    )
