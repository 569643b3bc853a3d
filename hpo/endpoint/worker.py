"""The one thread in which the model answers: requests are answered one after another, in the order they came.

So nothing of one request (its seed, its place in the model's cache) can get into another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
OnText = Callable[[str], None]


class _Gone(Exception):
    """Nobody waits for the text any more."""


class Worker:
    """Runs what asks the model."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._closing = threading.Event()

    async def run(self, task: Callable[[], T]) -> T:
        """What `task` returns, or the exception it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, task)

    async def whole(self, task: Callable[[OnText], T]) -> T:
        """What a task returns that tells text as it comes. It ends early when nobody waits for it any more."""
        gone = threading.Event()
        try:
            return await self.run(lambda: task(self._unless(gone)))
        finally:
            gone.set()

    async def pieces(self, task: Callable[[OnText], Any]) -> AsyncIterator[str]:
        """The text that `task` tells, as it comes. Raises what it raises.

        The model does not wait for a slow reader; closing this ends the task at its next token.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        gone = threading.Event()

        def tell(text: str) -> None:
            self._unless(gone)(text)
            if text:
                loop.call_soon_threadsafe(queue.put_nowait, text)

        def run() -> None:
            try:
                if not gone.is_set():
                    task(tell)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop may have gone too
                    loop.call_soon_threadsafe(queue.put_nowait, None)

        future = loop.run_in_executor(self._thread, run)
        try:
            while (text := await queue.get()) is not None:
                yield text
            await future
        finally:
            gone.set()
            with contextlib.suppress(Exception):
                await future

    def close(self) -> None:
        """End what runs at its next token, and the thread."""
        self._closing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _unless(self, gone: threading.Event) -> OnText:
        def listen(text: str) -> None:
            if gone.is_set() or self._closing.is_set():
                raise _Gone

        return listen
