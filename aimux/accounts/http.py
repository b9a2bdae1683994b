"""The HTTP client for control traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aimux.plugin.http import HttpAnswer


class ControlHttp:
    async def request(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,  # noqa: ASYNC109
    ) -> HttpAnswer:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
