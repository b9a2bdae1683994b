"""The section `tls` of the configuration."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainValidator, TypeAdapter, ValidationError, model_validator

from aimux.config.problems import wrong
from aimux.config.sections import OptionalPath, Section

_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def _name(value: Any) -> str:
    """A host name as DNS has it, or an address in its usual form."""
    text = value.strip() if isinstance(value, str) else ""
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        host = text.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        host = ""
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise wrong(
            "is neither a host name nor an address", "write it like gateway.lan or 10.0.0.5, without https:// and port"
        )
    return host


CertificateName = Annotated[str, PlainValidator(_name, json_schema_input_type=str)]


class SelfSigned(Section):
    """A certificate that aimux makes itself."""

    names: tuple[CertificateName, ...] = Field(
        default=(),
        description="Host names and addresses by which clients reach aimux, beside localhost, the host of `listen` "
        "and this machine's name. A new name makes a new certificate.",
    )


def _or_bool(value: Any) -> Any:
    """`true` is one that has only the usual names."""
    if isinstance(value, dict | SelfSigned):
        return value
    try:
        wanted = TypeAdapter(bool).validate_python(value)
    except ValidationError:
        raise wrong("must be true, false or a mapping with `names`", "self_signed: {names: [gateway.lan]}") from None
    return SelfSigned() if wanted else None


class TLS(Section):
    """Whether and with which certificate `listen` speaks HTTPS."""

    enabled: bool = Field(default=False, description="Serve HTTPS instead of HTTP.")
    cert_path: OptionalPath = Field(
        default=None, description="The certificate and its chain (PEM). A renewed file is picked up without a restart."
    )
    key_path: OptionalPath = Field(default=None, description="The certificate's private key (PEM).")
    self_signed: Annotated[SelfSigned | None, BeforeValidator(_or_bool, json_schema_input_type=bool | SelfSigned)] = (
        Field(
            default=None,
            description="Make a certificate of our own, keep it in `state_dir`, where others may read it, and print "
            "its fingerprint. Clients fetch it at `/certificate.pem`.",
        )
    )

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if not self.enabled:
            return self
        if self.self_signed and (self.cert_path or self.key_path):
            at = "cert_path" if self.cert_path else "key_path"
            raise wrong("excludes self_signed", "keep either the certificate's paths or self_signed: true", at=at)
        if not self.self_signed:
            for mine, other in (("cert_path", "key_path"), ("key_path", "cert_path")):
                if not getattr(self, mine):
                    why = f"is missing beside {other}" if getattr(self, other) else "is missing"
                    raise wrong(why, "set cert_path and key_path, or self_signed: true", at=mine)
        return self
