"""Takes the first step of what is awaited at once, so that what need not wait needs no timer."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

ResultT = TypeVar("ResultT")


class Begun(Generic[ResultT]):
    """What is awaited, up to where it waits. Await the rest once, in the task that made it, or close it."""

    __slots__ = ("_steps", "_waits_for", "result")

    def __init__(self, awaited: Awaitable[ResultT]) -> None:
        """Raises what the first step raises."""
        self._steps: Generator[Any, Any, ResultT] = awaited.__await__()
        self._waits_for: Any = None
        self.result: ResultT | None = None  # None while it waits
        try:
            self._waits_for = self._steps.send(None)
        except StopIteration as end:
            self.result = end.value

    def __await__(self) -> Generator[Any, None, ResultT]:
        """The result. What is thrown into the wait, such as a cancellation, reaches what is awaited."""
        if self.result is not None:
            return self.result
        waits_for = self._waits_for
        try:
            while True:
                try:
                    yield waits_for
                except BaseException as error:
                    waits_for = self._steps.throw(error)
                else:
                    waits_for = self._steps.send(None)
        except StopIteration as end:
            result: ResultT = end.value
            return result

    def close(self) -> None:
        """Ends it where it waits."""
        self._steps.close()
