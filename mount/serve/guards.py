"""Guards: the checks that a request passes before any handler sees it."""

from __future__ import annotations

from aiohttp.web import BaseRequest, Response

from bentofs.mount.serve.targets import Target


class Guards:
    """The checks of one server."""

    async def check(self, request: BaseRequest, target: Target) -> Response | None:  # noqa: ARG002
        """Return the refusal of a request; None if it may pass."""
        return None
