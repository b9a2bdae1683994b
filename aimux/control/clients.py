"""What each client needs to use a gateway: settings for its own file, and what a person types or clicks."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TOKEN_VARIABLE = "AIMUX_TOKEN"  # noqa: S105 - its name
"""Where people keep their own token for clients."""
PLACEHOLDER = "<your aimux token>"


class NotServed(Exception):
    """The gateway has no mount for this client; the text is the wire format that it lacks."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """`mounts`: wire format → URL without a slash at its end. `certificate`: one that clients have to be told of;
    `certificate_url`: where it is fetched from."""

    mounts: Mapping[str, str]
    certificate: Path | None = None
    certificate_url: str | None = None

    def base(self, wire_format: str) -> str:
        """Raises NotServed."""
        try:
            return self.mounts[wire_format]
        except KeyError:
            raise NotServed(wire_format) from None


@dataclass(frozen=True, slots=True)
class Client:
    """`settings(gateway, token)`: for its file, if it has one; without a token they hold a placeholder that works if
    the client knows one. `hints`: what else to know, line by line. `certificate_variable`: an environment variable, if
    settings can't name the gateway's certificate. `caution`: what would be in the way."""

    title: str
    hints: Callable[[Gateway], Iterator[str]]
    settings: Callable[[Gateway, str | None], dict[str, Any]] | None = None
    file: Callable[[Mapping[str, str], Path], Path] | None = None
    file_format: Literal["json", "toml"] = "json"
    certificate_variable: str | None = None
    caution: str = ""

    def needs(self, gateway: Gateway) -> Iterator[str]:
        """What is still to be done once the settings are in its file, line by line."""
        if self.caution:
            yield self.caution
        if gateway.certificate is None:
            return
        if self.certificate_variable is not None:
            yield f"It learns the certificate from the environment: {_export(self.certificate_variable, gateway)}"
        if gateway.certificate_url is not None:
            yield "On other machines fetch it, and compare its SHA-256 with what aimux says at its start:"
            yield f"  curl -kfo aimux.pem {gateway.certificate_url}"
            yield "  openssl x509 -in aimux.pem -noout -fingerprint -sha256"


def _export(variable: str, gateway: Gateway) -> str:
    return f"export {variable}={shlex.quote(str(gateway.certificate))}"


# --- Claude Code -----------------------------------------------------------------------------------------------------


def _claude_code(gateway: Gateway, token: str | None) -> dict[str, Any]:
    env = {"ANTHROPIC_BASE_URL": gateway.base("anthropic"), "ANTHROPIC_AUTH_TOKEN": token or PLACEHOLDER}
    if gateway.certificate is not None:
        env["NODE_EXTRA_CA_CERTS"] = str(gateway.certificate)
    return {"env": env}


def _claude_code_hints(gateway: Gateway) -> Iterator[str]:
    yield "Or for one shell only:"
    if gateway.certificate is not None:
        yield f"  {_export('NODE_EXTRA_CA_CERTS', gateway)}"
    yield f"  export ANTHROPIC_BASE_URL={gateway.base('anthropic')} ANTHROPIC_AUTH_TOKEN=${TOKEN_VARIABLE}"
    yield (
        "Behind a gateway, older versions (2.1.273, say) send all tools of all MCP servers with each request. If the"
        " accounts are Anthropic's own, this has them looked up when they are needed, as without one:"
    )
    yield "  export ENABLE_TOOL_SEARCH=true"
    yield (
        "It also has prompts cached for five minutes alone. If the accounts are subscriptions, this has them cached for"
        " an hour, as with a login (older versions: ENABLE_PROMPT_CACHING_1H=1):"
    )
    yield "  export CLAUDE_CODE_PROMPT_CACHE_TTL=1h"


# --- Codex -----------------------------------------------------------------------------------------------------------


def _codex(gateway: Gateway, token: str | None) -> dict[str, Any]:
    base = f"{gateway.base('openai')}/v1"
    entry: dict[str, Any] = {
        "name": "aimux",
        "base_url": base,
        # Otherwise Codex (0.156 and later) only knows the models that it was built with.
        "model_catalog_url": f"{base}/models",
        "wire_api": "responses",
        "supports_websockets": True,
    }
    entry |= {"env_key": TOKEN_VARIABLE} if token is None else {"experimental_bearer_token": token}
    return {
        "model_provider": "aimux",
        "model_providers": {"aimux": entry},
        "features": {"api_key_model_discovery": True},
    }


def _codex_hints(gateway: Gateway) -> Iterator[str]:
    yield f"With `env_key` it takes the token from the environment: export {TOKEN_VARIABLE}=…"


# --- opencode --------------------------------------------------------------------------------------------------------


def _opencode(gateway: Gateway, token: str | None) -> dict[str, Any]:
    # Its packages put what comes behind /v1 to the base.
    key = f"{{env:{TOKEN_VARIABLE}}}" if token is None else token
    names = {"anthropic": "anthropic", "openai": "openai"}
    served = {name: gateway.mounts[name] for name in names if name in gateway.mounts}
    if not served:
        raise NotServed("anthropic")
    providers = {name: {"options": {"baseURL": f"{base}/v1", "apiKey": key}} for name, base in served.items()}
    return {"$schema": "https://opencode.ai/config.json", "provider": providers}


def _opencode_hints(gateway: Gateway) -> Iterator[str]:
    yield f"{{env:{TOKEN_VARIABLE}}} is the token from the environment: export {TOKEN_VARIABLE}=…"


# --- those without a file --------------------------------------------------------------------------------------------


def _sdk_hints(gateway: Gateway) -> Iterator[str]:
    yield "For a shell or a .env file; the SDKs read these by themselves:"
    if gateway.certificate is not None:
        yield f"  {_export('SSL_CERT_FILE', gateway)}; {_export('NODE_EXTRA_CA_CERTS', gateway)}"
    for prefix, key, wire_format, end in (
        ("ANTHROPIC", "ANTHROPIC_AUTH_TOKEN", "anthropic", ""),
        ("OPENAI", "OPENAI_API_KEY", "openai", "/v1"),
    ):
        if wire_format in gateway.mounts:
            yield f"  export {prefix}_BASE_URL={gateway.base(wire_format)}{end} {key}=${TOKEN_VARIABLE}"
    yield ""
    yield "In Python (in Node likewise: baseURL, authToken, apiKey):"
    if "anthropic" in gateway.mounts:
        yield f'  Anthropic(base_url="{gateway.base("anthropic")}", auth_token=os.environ["{TOKEN_VARIABLE}"])'
    if "openai" in gateway.mounts:
        yield f'  OpenAI(base_url="{gateway.base("openai")}/v1", api_key=os.environ["{TOKEN_VARIABLE}"])'
        yield "A ChatGPT login serves streamed Responses only; for the rest the gateway needs an OpenAI API key."


def _cursor_hints(gateway: Gateway) -> Iterator[str]:
    base = gateway.base("openai")
    yield "Cursor keeps this in its settings window, Models → API Keys:"
    yield "  OpenAI API Key            your aimux token"
    yield f"  Override OpenAI Base URL  {base}/v1"
    yield (
        "Cursor's own servers make the requests: the gateway must be reachable from the internet, over HTTPS with a"
        " certificate that everybody trusts. They speak Chat Completions, which takes an OpenAI API key behind aimux."
    )


CLIENTS: dict[str, Client] = {
    "claude-code": Client(
        "Claude Code",
        _claude_code_hints,
        _claude_code,
        lambda environ, home: Path(environ.get("CLAUDE_CONFIG_DIR") or home / ".claude") / "settings.json",
        caution="ANTHROPIC_API_KEY and CLAUDE_CODE_OAUTH_TOKEN should be unset; a login of Claude Code's own may stay.",
    ),
    "codex": Client(
        "Codex",
        _codex_hints,
        _codex,
        lambda environ, home: Path(environ.get("CODEX_HOME") or home / ".codex") / "config.toml",
        "toml",
        "CODEX_CA_CERTIFICATE",
    ),
    "sdk": Client("the SDKs", _sdk_hints),
    "opencode": Client(
        "opencode",
        _opencode_hints,
        _opencode,
        lambda environ, home: Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "opencode" / "opencode.json",
        certificate_variable="NODE_EXTRA_CA_CERTS",
    ),
    "cursor": Client("Cursor", _cursor_hints),
}
