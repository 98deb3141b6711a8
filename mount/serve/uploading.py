"""Uploading: brings one file into `incoming/`, from the first byte to its outcome. It does what the kernel does for a
program that creates a file, writes and closes it.

Threading: the event loop's thread; all that touches the drop box runs in the site's threads.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NamedTuple

from aiohttp.web import RequestPayloadError

from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.incoming.upload_facts import Became
from bentofs.mount.serve.body import Blocks
from bentofs.mount.serve.site import Site
from bentofs.store.errors import CancelledError, NotFoundError, StoreError
from bentofs.store.publishing.base import Outcome

_KEEP_SIZE = 1  # a mode of fallocate(2): only ask for room
_WHOLE = "send the rest from byte {0} on (curl -C {0} -T FILE), or all of it again"


class Done(NamedTuple):
    """The outcome of an upload that was not refused."""

    became: Became | None  # None for a file that is no archive, or does not have its final name yet
    size: int
    was_there: bool  # the name was taken before

    @property
    def status(self) -> int:
        if self.became is not None:
            return 201 if self.became.outcome is Outcome.IMPORTED else 200
        return 200 if self.was_there else 201

    def fields(self, name: str) -> dict[str, Any]:
        """Return the outcome for programs."""
        if self.became is None:
            return {"name": name, "outcome": "kept", "size": self.size}
        found = {"name": name, "tag": self.became.tag, "outcome": self.became.outcome.value, "size": self.size}
        return found if self.became.note is None else {**found, "note": self.became.note}


class Part(NamedTuple):
    """The range of a file that a client sends."""

    start: int
    end: int  # of the range, exclusive
    size: int | None  # of the whole file; None if the client does not know it yet

    @property
    def is_last(self) -> bool:
        return self.end == self.size


class Uploads:
    """The uploads of one server."""

    def __init__(self, site: Site, namespace: Namespace) -> None:
        self._site = site
        self._namespace = namespace
        self._files = namespace.files

    async def take(self, below: str, blocks: AsyncIterator[Blocks], size: int | None) -> Done:
        """Take a whole file; `below`: its path in `incoming/`; `size`: None if it is not known.

        Raises:
            StoreError, OSError: why it was not imported.
            ConnectionError: the client has gone. What came is kept.
        """
        number, was_there = await self._site.write(self._begin, below, size)
        return Done(*await self._finish(number, blocks, 0, size), was_there)

    async def take_part(self, below: str, blocks: AsyncIterator[Blocks], part: Part) -> Done | None:
        """Take a part of a file that is here already. Return None if more is to come. Raises the same errors as
        `take`, and `PartError`."""
        number = await self._site.write(self._resume, below, part)
        became, size = await self._finish(number, blocks, part.start, part.end, goes_on=not part.is_last)
        return Done(became, size, True) if part.is_last else None

    async def make_empty(self, below: str) -> bool:
        """Create an empty file, or empty one. It is neither imported nor refused: clients lock names so, or make a file
        before they write it. Return True if the name was free."""
        return await self._site.write(self._make_empty, below)

    async def _finish(
        self,
        number: int,
        blocks: AsyncIterator[Blocks],
        start: int,
        end: int | None,
        *,
        goes_on: bool = False,
    ) -> tuple[Became | None, int]:
        """Write and decide an open file. `goes_on`: more parts come, so do not decide it. Return the model that it
        became, and where the last block ended."""
        place = _Place(start, end)
        is_whole = False
        try:
            async for together in blocks:
                await self._write(number, together, place)
            if end is not None and place.offset < end:
                raise ConnectionResetError
            is_whole = not goes_on
            if is_whole:
                await self._site.write(self._files.flush, number)
        except (ConnectionError, RequestPayloadError, PartError, asyncio.CancelledError):
            if not is_whole:
                await self._interrupt(number, place.offset, end)
            raise
        except (StoreError, OSError):
            if not is_whole:  # as the kernel does when the program closes the file
                with suppress(StoreError, OSError):
                    await self._site.write(self._files.flush, number)
            raise
        finally:
            became = self._files.became(number)
            await asyncio.shield(self._site.write(self._files.release, number))
        return became, place.offset

    async def _write(self, number: int, blocks: Blocks, place: _Place) -> None:
        """Write blocks to an open file. If that is cancelled, wait for the thread: it may be receiving."""
        writing = asyncio.ensure_future(self._site.write(self._write_blocks, number, blocks, place))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            place.is_left = True
            await asyncio.wait([writing])
            writing.exception()  # it is the upload's, and tells no more than that the upload has ended
            raise

    def _write_blocks(self, number: int, blocks: Blocks, place: _Place) -> None:
        for block in blocks:
            place.check(len(block))
            self._files.write(number, memoryview(block), place.offset)
            place.offset += len(block)
            if place.is_left:
                break

    async def _interrupt(self, number: int, offset: int, end: int | None) -> None:
        total = "" if end is None else f" of its {end:,}"
        error = CancelledError(f"only {offset:,}{total} bytes came: {_WHOLE.format(offset)}")
        await asyncio.shield(self._site.write(self._files.interrupt, number, error))

    def _begin(self, below: str, size: int | None) -> tuple[int, bool]:
        """Open a file to write it anew. Return the handle, and True if the name was taken."""
        try:
            self._namespace.attributes(below)
            number, was_there = self._files.open(below, os.O_WRONLY | os.O_TRUNC, self._site.user), True
        except NotFoundError:
            try:
                number, was_there = self._files.create(below, os.O_WRONLY, 0o644, self._site.user), False
            except FileExistsError:  # another client has just created it
                number, was_there = self._files.open(below, os.O_WRONLY | os.O_TRUNC, self._site.user), True
        try:
            if size:
                self._files.allocate(number, 0, size, _KEEP_SIZE)  # refuse at once what has no room
        except BaseException:
            self._files.release(number)
            raise
        return number, was_there

    def _resume(self, below: str, part: Part) -> int:
        number = self._files.open(below, os.O_WRONLY, self._site.user)
        try:
            has = self._files.size(number)
            if part.start > has:
                raise PartError(f"only {has} bytes have come: send the rest from byte {has} on", has)
            if part.size is not None and has > part.size:
                self._files.truncate(number, part.size)
        except BaseException:
            self._files.release(number)
            raise
        return number

    def _make_empty(self, below: str) -> bool:
        number, was_there = self._begin(below, None)
        try:
            if not was_there:
                self._namespace.set_times(below, None, time.time_ns())
        finally:
            self._files.release(number)
        return not was_there


class _Place:
    """The place in a file at which its next bytes belong."""

    def __init__(self, start: int, end: int | None) -> None:
        """`end`: behind the last byte, if it is known."""
        self.offset = start
        self.is_left = False  # True if no more is to be written
        self._start, self._end = start, end

    def check(self, count: int) -> None:
        """Raise PartError if the file has no place for so many bytes more."""
        if self._end is not None and self.offset + count > self._end:
            raise PartError(f"more bytes came than the {self._end - self._start} that were declared")


class PartError(Exception):
    """A part that does not fit. The text is a sentence for the client."""

    def __init__(self, sentence: str, has: int | None = None) -> None:
        """`has`: the number of bytes that are here, if that is the reason."""
        super().__init__(sentence)
        self.has = has
