"""The one shape of the API's errors: RFC 9457 problem details."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from aimux.control.api.body import Body
from aimux.redaction import mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError

CONTENT_TYPE = "application/problem+json"


_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text",
    "list_type": "must be a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
}
"""What pydantic finds, in the words of the configuration's problems."""
MOST_FAULTS = 100
"""More are counted, and not told: to word 80,000 took ten seconds, in which nobody else was served."""
_SHOULD = re.compile(r"^(?:Input|String|List|Dictionary|Value) should ")


class Fault(Body):
    """One thing that is wrong with a request."""

    where: str = Field(description="The field, such as `body.name`.")
    message: str


class Problem(Body):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="ignore")

    type: str = Field(default="about:blank", description="`urn:aimux:` and a word that programs can rely on.")
    title: str
    status: int
    detail: str = Field(default="", description="What is wrong, for a person.")
    remedy: str | None = Field(default=None, description="What to do about it.")
    account: str | None = Field(default=None, description="The account it is about, as `provider/name`.")
    key_file: str | None = Field(
        default=None, description="Where the admin key lies; told to this machine alone, where the key is wrong."
    )
    errors: list[Fault] | None = Field(default=None, description="What is wrong with the request's fields.")


class Refused(Exception):
    """An operation's own refusal. `word` is the last part of the problem's type.

    Its texts may come from a plugin: no secret that aimux holds is left in them.
    """

    def __init__(
        self,
        status: int,
        word: str,
        detail: str,
        *,
        remedy: str = "",
        account: str | None = None,
        key_file: str | None = None,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        self.problem = Problem(
            type=f"urn:aimux:{word}",
            title=HTTPStatus(status).phrase,
            status=status,
            detail=mask(detail),
            remedy=mask(remedy) or None,
            account=account,
            key_file=key_file,
            errors=[Fault(where=fault.where, message=mask(fault.message)) for fault in errors] or None,
        )


def sentence(text: str) -> str:
    """With a full stop, and a capital unless it begins with a name (of a host, an account) or a command."""
    word = text.partition(" ")[0]
    named = word == "aimux" or "." in word or "/" in word
    return f"{text if named else text[:1].upper() + text[1:]}."


def invalid(error: ValidationError, where: str) -> Refused:
    """A request that doesn't fit its model. What was sent is not repeated: it may be a secret."""
    faults, remedies, count = [], [], error.error_count()
    if count > MOST_FAULTS:
        return Refused(422, "invalid", f"{where}: {count} fields are wrong, or not known here.")
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] == "json_invalid":
            return Refused(400, "not-json", "The body is not valid JSON.")
        message = _WORDS.get(detail["type"]) or _SHOULD.sub("must ", detail["msg"].removeprefix("Value error, "))
        steps = [str(step) for step in detail["loc"] if step != "[key]"]  # pydantic's word for a name in a mapping
        faults.append(Fault(where=".".join([where, *steps]), message=message))
        if remedy := detail.get("ctx", {}).get("remedy"):
            remedies.append(remedy)
    remedy = "; ".join(dict.fromkeys(remedies))
    return Refused(422, "invalid", "; ".join(f"{f.where}: {f.message}" for f in faults), remedy=remedy, errors=faults)
