"""The public plugin API: all that a provider imports. See docs/plugins.md."""

from aimux.plugin.body import Body
from aimux.plugin.documents import credential_text, load_object
from aimux.plugin.errors import (
    CredentialError,
    ErrorKind,
    GatewayError,
    LimitReached,
    LoginError,
    PromptTooLong,
    RateLimited,
    RefreshError,
    RefreshRejected,
    RefreshUnavailable,
    RequestRefused,
)
from aimux.plugin.hookspecs import Register, RegisterCommand, RegisterRoutes, RegisterSink, hookimpl
from aimux.plugin.http import Http, HttpAnswer, HttpUnavailable
from aimux.plugin.message_meter import MessageMeter
from aimux.plugin.meters import JSONMeter, Meter, ResultsMeter, StoredAnswer
from aimux.plugin.parts import Api, Command, Record, Routes
from aimux.plugin.provider import DeviceCode, ErrorAnswer, Provider, is_object, retry_after
from aimux.plugin.reading import count, number, plain_path, sse_events, texts
from aimux.plugin.settings import AccountSettings, ApiUrl, HttpUrl, ProviderSettings
from aimux.plugin.sse_meter import SSEMeter
from aimux.plugin.stored import Lists, StoredPage, TooManyReferences, ids_in_body, ids_in_path, members
from aimux.plugin.types import (
    RELAY,
    Action,
    Credential,
    Headers,
    Hints,
    LimitState,
    LimitWindow,
    Over,
    RequestHead,
    Upstream,
    Verdict,
)
from aimux.plugin.usage import Usage

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
    "LimitReached",
    "LimitState",
    "LimitWindow",
    "Lists",
    "LoginError",
    "MessageMeter",
    "Meter",
    "Over",
    "PromptTooLong",
    "Provider",
    "ProviderSettings",
    "RateLimited",
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
    "ResultsMeter",
    "Routes",
    "SSEMeter",
    "StoredAnswer",
    "StoredPage",
    "TooManyReferences",
    "Upstream",
    "Usage",
    "Verdict",
    "count",
    "credential_text",
    "hookimpl",
    "ids_in_body",
    "ids_in_path",
    "is_object",
    "load_object",
    "members",
    "number",
    "plain_path",
    "retry_after",
    "sse_events",
    "texts",
]
