"""chatgpt.com/backend-api: what Codex talks to with a ChatGPT login. Only streams, and error shapes of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aimux.simulator.accounts import stable
from aimux.simulator.answers import Pairs, SimulatedAnswer, edge_answer, json_answer
from aimux.simulator.openai import MODELS, OpenAIApi
from aimux.simulator.tokens import RefusedToken

if TYPE_CHECKING:
    from aimux.simulator.accounts import Window
    from aimux.simulator.answers import Call

WINDOW_NAMES = {"5h": "primary", "7d": "secondary", "7d_oi": "secondary"}
EXPIRED = ("token_expired", "Provided authentication token is expired. Please try signing in again.")
REVOKED = ("token_revoked", "Encountered invalidated oauth token for user, failing request")


class ChatGPTApi(OpenAIApi):
    """The ChatGPT base, below which Codex's paths have no /v1."""

    def authenticate(self, call: Call) -> SimulatedAnswer | None:
        """A good access token and the account id that goes with it."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return self._detail(call, 401, "Unauthorized")
        try:
            family = self._tokens.check(token.strip())
        except RefusedToken as refused:
            call.account = refused.account
            if refused.reason == "unknown":
                return self._detail(
                    call, 401, "Could not parse your authentication token. Please try signing in again."
                )
            return self._coded(call, *(EXPIRED if refused.reason == "expired" else REVOKED))
        call.account, call.scope = family.account, family.scope
        if call.headers.get("chatgpt-account-id") != family.account.account_id:
            return self._detail(call, 401, "Unauthorized")
        return None

    def fault(self, call: Call, status: int) -> SimulatedAnswer:
        scenario = call.scenario
        if status == 401:
            return self._coded(call, *(REVOKED if scenario.detail == "revoked" else EXPIRED))
        if status == 403:
            return self._detail(call, 403, "Forbidden")
        if status == 429:
            if scenario.seconds is None:
                return self._detail(call, 429, "Too many requests")
            window = WINDOW_NAMES[scenario.window]
            return self._limited(call, window, call.now + scenario.seconds)
        if status in {502, 504}:
            return edge_answer(status)
        return super().fault(call, status)

    def respond(self, call: Call) -> SimulatedAnswer:
        match call.method, call.path:
            case ("POST", "/backend-api/codex/responses"):
                return self.checked(call, "input") or self._codex(call) or self.responses(call)
            case ("POST", "/backend-api/codex/responses/compact"):
                return self.checked(call, "input") or self._room(call) or self.compact(call)
            case ("GET" | "HEAD", "/backend-api/codex/models"):
                models = [_model(name, rank) for rank, name in enumerate(MODELS)]
                etag = f'"{stable(*MODELS)[:16]}"'
                return json_answer(200, {"models": models}, [*self.ids(call), ("etag", etag)])
            case ("GET", "/backend-api/wham/usage" | "/api/codex/usage"):
                return json_answer(200, self._usage(call), self.ids(call))
        return self._detail(call, 404, "Not Found")

    def _codex(self, call: Call) -> SimulatedAnswer | None:
        """What this base requires beyond the API."""
        if call.json.get("stream") is not True:
            return self._detail(call, 400, "Stream must be set to true")
        if call.json.get("store") is not False:
            return self._detail(call, 400, "Store must be set to false")
        return self._room(call)

    def _room(self, call: Call) -> SimulatedAnswer | None:
        if limits := call.owner.rejected(call.now):
            tightest = max(limits, key=lambda window: window.resets_at)
            return self._limited(call, tightest.name, tightest.resets_at)
        return None

    def _limited(self, call: Call, window: str, until: float) -> SimulatedAnswer:
        error = {
            "type": "usage_limit_reached",
            "message": "The usage limit has been reached",
            "plan_type": call.owner.plan,
            "resets_at": round(until),
            "resets_in_seconds": max(0, round(until - call.now)),
        }
        return json_answer(429, {"error": error}, [*self.ids(call), *self.limits(call, rejected=window, until=until)])

    def headers(self, call: Call) -> Pairs:
        model = str(call.json.get("model", MODELS[0]))
        state = call.headers.get("x-codex-turn-state") or f"turn-{stable(call.owner.name, call.number)[:32]}"
        return [
            *self.ids(call),
            *self.limits(call),
            ("openai-model", model),
            ("x-codex-turn-state", state),
            ("x-models-etag", f'"{stable(*MODELS)[:16]}"'),
            ("x-reasoning-included", "true"),
        ]

    def limits(self, call: Call, rejected: str = "", until: float = 0.0) -> Pairs:
        """The headers of the windows; `rejected` is used up until `until`."""
        owner = call.owner
        owner.rejected(call.now)  # rolls the windows
        pairs: Pairs = [("x-codex-plan-type", owner.plan), ("x-codex-active-limit", "codex")]
        for window in owner.windows.values():
            used, reset = window.used, window.resets_at
            if window.name == rejected:
                used, reset = 1.0, until
            elif call.scenario.overage and window.name == WINDOW_NAMES[call.scenario.window]:
                used = 1.0
            prefix = f"x-codex-{window.name}"
            pairs += [
                (f"{prefix}-used-percent", f"{used * 100:.1f}"),
                (f"{prefix}-window-minutes", f"{window.length / 60:.0f}"),
                (f"{prefix}-reset-after-seconds", f"{max(0, reset - call.now):.0f}"),
                (f"{prefix}-reset-at", f"{reset:.0f}"),
            ]
        paid = str(call.scenario.overage and not rejected)
        return [*pairs, ("x-codex-credits-has-credits", paid), ("x-codex-credits-unlimited", "False")]

    def limits_event(self, call: Call) -> dict[str, Any] | None:
        """`codex.rate_limits`: what the headers say, on a WebSocket."""
        owner, paid = call.owner, call.scenario.overage
        spent = WINDOW_NAMES[call.scenario.window] if paid else ""
        windows = {
            name: {
                "used_percent": 100.0 if name == spent else round(window.used * 100, 1),
                "window_minutes": round(window.length / 60),
                "reset_at": round(window.resets_at),
            }
            for name, window in owner.windows.items()
        }
        limited = bool(owner.rejected(call.now))
        return {
            "type": "codex.rate_limits",
            "plan_type": owner.plan,
            "rate_limits": {"allowed": not limited, "limit_reached": limited, **windows},
            "credits": {"has_credits": paid, "unlimited": False, "balance": None},
        }

    def _usage(self, call: Call) -> dict[str, Any]:
        owner = call.owner
        limited = bool(owner.rejected(call.now))
        return {
            "user_id": owner.user_id,
            "account_id": owner.account_id,
            "email": owner.email,
            "plan_type": owner.plan,
            "rate_limit": {
                "allowed": not limited,
                "limit_reached": limited,
                "primary_window": _window(owner.windows["primary"], call.now),
                "secondary_window": _window(owner.windows["secondary"], call.now),
            },
            "credits": {"has_credits": False, "unlimited": False, "balance": None},
        }

    def _detail(self, call: Call, status: int, detail: str) -> SimulatedAnswer:
        return json_answer(status, {"detail": detail}, self.ids(call))

    def _coded(self, call: Call, code: str, message: str) -> SimulatedAnswer:
        error = {"message": message, "type": None, "code": code, "param": None}
        return json_answer(401, {"error": error, "status": 401}, self.ids(call))


def _window(window: Window, now: float) -> dict[str, Any]:
    return {
        "used_percent": round(window.used * 100),
        "limit_window_seconds": round(window.length),
        "reset_after_seconds": max(0, round(window.resets_at - now)),
        "reset_at": round(window.resets_at),
    }


def _model(name: str, rank: int) -> dict[str, Any]:
    """A model as Codex's picker wants it described."""
    efforts = [{"effort": effort, "description": effort.title()} for effort in ("low", "medium", "high")]
    return {
        "slug": name,
        "display_name": name,
        "description": "Simulated: it answers, and thinks of nothing.",
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": efforts,
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": rank,
        "upgrade": None,
        "base_instructions": "You are a simulator.",
        "supports_reasoning_summaries": True,
        "support_verbosity": True,
        "default_verbosity": "medium",
        "apply_patch_tool_type": "freeform",
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "supports_parallel_tool_calls": True,
        "context_window": 272_000,
        "experimental_supported_tools": [],
    }
