"""The public plugin API: all that a provider imports. See docs/plugins.md."""

from aimux.plugin.documents import credential_text, load_object
from aimux.plugin.errors import (
    CredentialError,
    ErrorKind,
    GatewayError,
    LoginError,
    RefreshError,
    RefreshRejected,
    RefreshUnavailable,
    RequestRefused,
)
from aimux.plugin.hookspecs import Register, RegisterCommand, RegisterRoutes, RegisterSink, hookimpl
from aimux.plugin.http import Http, HttpAnswer, HttpUnavailable
from aimux.plugin.meters import JSONMeter, MessageMeter, Meter, SSEMeter, count, sse_events
from aimux.plugin.parts import Api, Command, Record, Routes
from aimux.plugin.provider import DeviceCode, ErrorAnswer, Provider, is_object, retry_after
from aimux.plugin.settings import AccountSettings, ApiUrl, HttpUrl, ProviderSettings
from aimux.plugin.types import (
    RELAY,
    Action,
    Body,
    Credential,
    Headers,
    Hints,
    LimitWindow,
    RequestHead,
    Upstream,
    Usage,
    Verdict,
)

__all__ = [
    "RELAY",
    "AccountSettings",
    "Action",
    "Api",
    "ApiUrl",
    "Body",
    "Command",
    "Credential",
    "CredentialError",
    "DeviceCode",
    "ErrorAnswer",
    "ErrorKind",
    "GatewayError",
    "Headers",
    "Hints",
    "Http",
    "HttpAnswer",
    "HttpUnavailable",
    "HttpUrl",
    "JSONMeter",
    "LimitWindow",
    "LoginError",
    "MessageMeter",
    "Meter",
    "Provider",
    "ProviderSettings",
    "Record",
    "RefreshError",
    "RefreshRejected",
    "RefreshUnavailable",
    "Register",
    "RegisterCommand",
    "RegisterRoutes",
    "RegisterSink",
    "RequestHead",
    "RequestRefused",
    "Routes",
    "SSEMeter",
    "Upstream",
    "Usage",
    "Verdict",
    "count",
    "credential_text",
    "hookimpl",
    "is_object",
    "load_object",
    "retry_after",
    "sse_events",
]
