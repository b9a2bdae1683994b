"""Errors as the vendors' APIs tell them."""

from __future__ import annotations

import json
from typing import Any

from multidict import CIMultiDict

from aimux.plugin import Verdict
from aimux_chatgpt import ChatGPT


def anthropic_error(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()


def openai_error(kind: str | None, /, **more: Any) -> bytes:
    return json.dumps({"error": {"type": kind, "message": "…", **more}}).encode()


def judged(chatgpt: ChatGPT, status: int, raw: bytes, **headers: str) -> Verdict:
    """`headers`: with `_` for `-`."""
    return chatgpt.classify(status, CIMultiDict({k.replace("_", "-"): v for k, v in headers.items()}), raw)
