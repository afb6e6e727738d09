"""Takes the first step of a coroutine at once, so that what need not wait costs no timer and no turn of the loop."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

ResultT = TypeVar("ResultT")


class Begun(Generic[ResultT]):
    """A coroutine up to where it waits. Await the rest once, in the task that made it, or close it."""

    __slots__ = ("_coroutine", "_waits_for", "result")

    def __init__(self, coroutine: Coroutine[Any, Any, ResultT]) -> None:
        """Raises what the first step raises."""
        self._coroutine = coroutine
        self._waits_for: Any = None
        self.result: ResultT | None = None  # None while it waits
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration as end:
            self.result = end.value

    def __await__(self) -> Generator[Any, None, ResultT]:
        """The result. What is thrown into the wait, such as a cancellation, reaches the coroutine."""
        if self.result is not None:
            return self.result
        waits_for = self._waits_for
        try:
            while True:
                try:
                    yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(None)
        except StopIteration as end:
            result: ResultT = end.value
            return result

    def close(self) -> None:
        """Ends the coroutine where it waits."""
        self._coroutine.close()
