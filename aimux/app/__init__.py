"""The composition root: the only part that knows them all. Builds the parts, runs them, reloads and ends them."""

from __future__ import annotations

from aimux.app.app import App
from aimux.app.process import run, serve
from aimux.app.setup import AFTER_RESTART

__all__ = ["AFTER_RESTART", "App", "run", "serve"]
