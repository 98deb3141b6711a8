"""Feed: tells open pages of imports as they go on, by server-sent events.

One look at the record of imports serves all pages. A page that is slow to take its events loses the older ones: each
event tells the whole state of an import.

Threading: the event loop's thread only. The record is read in a thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp.web import BaseRequest, Response, StreamResponse

from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.connections import Activity, Phase
from bentofs.mount.serve.site import Site
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.receipt import Receipt

_INTERVAL = 0.5  # seconds between two looks at the record
_HEARTBEAT_SECONDS = 15.0  # so that a page that has gone is noticed, and proxies keep the connection
_MOST_PAGES = 100
_WAITING = 100  # events that a slow page may have before it
_TYPE = "text/event-stream"


class Feed:
    """The events of one server."""

    def __init__(
        self, site: Site, record: ImportLog, render: Callable[[Receipt], str], imported: Callable[[], None]
    ) -> None:
        """`render`: makes the HTML of an import; `imported`: called when models have come."""
        self._site = site
        self._record = record
        self._render = render
        self._imported = imported
        self._pages: set[asyncio.Queue[Receipt]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._change = 0

    async def answer(self, request: BaseRequest, activity: Activity, since: int) -> StreamResponse:
        """Send events until the page goes. `since`: the change that the page knows."""
        if len(self._pages) >= _MOST_PAGES:
            return sentence_answer(503, "too many pages are open: reload this one later", {"Retry-After": "60"})
        if request.method == "HEAD":
            return Response(content_type=_TYPE)
        response = StreamResponse(headers={"Content-Type": _TYPE, "Cache-Control": "no-store"})
        activity.enter(Phase.LISTENING)
        await response.prepare(request)
        queue: asyncio.Queue[Receipt] = asyncio.Queue(_WAITING)
        self._pages.add(queue)  # before the record is read, so that no change falls between
        try:
            while receipts := await self._site.read(self._record.since, since, _WAITING):
                for receipt in receipts:
                    await response.write(self._event(receipt))
                since = receipts[-1].change
            if self._watcher is None or self._watcher.done():
                self._change = since
                self._watcher = asyncio.get_running_loop().create_task(self._watch())
            while True:
                activity.enter(Phase.LISTENING)
                try:
                    receipt = await asyncio.wait_for(queue.get(), _HEARTBEAT_SECONDS)
                except (TimeoutError, asyncio.TimeoutError):
                    await response.write(b": still here\n\n")
                    continue
                if receipt.change > since:
                    await response.write(self._event(receipt))
        finally:
            self._pages.discard(queue)

    async def _watch(self) -> None:
        """Look at the record as long as a page is open."""
        while self._pages:
            receipts = await self._site.read(self._record.since, self._change, _WAITING)
            if receipts:
                self._change = receipts[-1].change
                if any(receipt.state.successful for receipt in receipts):
                    self._imported()
            for receipt in receipts:
                for queue in self._pages:
                    if queue.full():
                        queue.get_nowait()
                    queue.put_nowait(receipt)
            await asyncio.sleep(_INTERVAL)

    def _event(self, receipt: Receipt) -> bytes:
        fields = {
            "id": receipt.id,
            "state": receipt.state.value,
            "ended": receipt.state.ended,
            "successful": receipt.state.successful,
            "html": self._render(receipt),
        }
        return f"id: {receipt.change}\nevent: import\ndata: {json.dumps(fields)}\n\n".encode()
