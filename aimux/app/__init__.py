"""The composition root: the only part that knows them all. Builds the parts, runs them, reloads and ends them."""

from __future__ import annotations

from aimux.app.app import AFTER_RESTART, App
from aimux.app.process import run, serve

__all__ = ["AFTER_RESTART", "App", "run", "serve"]
