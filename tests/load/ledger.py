"""A client that writes down the one outcome of each of its requests, and whether the answer was the right one.

It runs in a process of its own: `python -m tests.load.ledger PLAN OUT` reads what to ask from PLAN, asks until SIGTERM
and writes each entry to OUT as it comes, one line of JSON each.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from saccade.service.bench.statistics import percentiles
from tests.support.server import ROOT, clean_environment

Outcome = Literal["right", "wrong", "rejected", "refused", "failed", "broken", "unreachable", "silent", "left"]
"""right, wrong: 200, compared with the known answer; rejected: 4xx for a bad picture; refused: 429, 503 or 504;
failed: any other status; broken: the connection ended without an answer; unreachable: there was none, so that a
balancer would ask elsewhere; silent: no answer at all in time; left: the client itself went away."""

SILENT_S = 15.0
_TOLERANCE = 1e-3
_BAD_PICTURE = b"\x89PNG\r\n\x1a\nno picture"
_BEGUN = "asking"  # the process says so on stdout
_PAUSE_S = 0.05  # after a connection that could not be made
_END_S = (
    120.0  # a busy machine may be late with the last answers; those that are silent for SILENT_S have ended by then
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request. Times are of the monotonic clock, which processes of one machine share."""

    sent_s: float
    end_s: float
    model: str
    outcome: Outcome

    @property
    def ms(self) -> float:
        return 1000 * (self.end_s - self.sent_s)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask: per model pictures with their right answers, asked by `connections` connections in turn."""

    base_url: str
    pictures: Mapping[str, Sequence[tuple[bytes, Any]]]
    connections: int
    bad_share: float = 0.0  # of requests whose picture is damaged
    leave_share: float = 0.0  # of requests whose client leaves before the answer
    keeps_alive: bool = True  # False: a connection of its own for every request
    seed: int = 0
    pause_s: float = 0.0  # of each connection between an answer and its next request

    def to_json(self) -> str:
        pictures = {
            model: [(base64.b64encode(picture).decode(), answer) for picture, answer in known]
            for model, known in self.pictures.items()
        }
        return json.dumps({**asdict(self), "pictures": pictures})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        given = json.loads(text)
        pictures = {
            model: [(base64.b64decode(picture), answer) for picture, answer in known]
            for model, known in given["pictures"].items()
        }
        return cls(**{**given, "pictures": pictures})


def is_same(found: Any, expected: Any) -> bool:
    """Numbers may differ by rounding, as batches of other sizes round otherwise; all else may not."""
    match found, expected:
        case dict(), dict():
            return found.keys() == expected.keys() and all(is_same(found[key], expected[key]) for key in expected)
        case list(), list():
            return len(found) == len(expected) and all(map(is_same, found, expected))
        case bool() | str() | None, _:
            return bool(found == expected)
        case int() | float(), int() | float():
            return abs(found - expected) <= _TOLERANCE * max(1.0, abs(expected))
        case _:
            return False


def outcome_of(status: int, document: Any, expected: Any, *, is_bad: bool) -> Outcome:
    """expected: the right `predictions[0]`; of a bad picture only a 4xx is right."""
    if status in (429, 503, 504):
        return "refused"
    if is_bad:
        return "rejected" if 400 <= status < 500 else "wrong" if status == 200 else "failed"
    if status != 200:
        return "failed"
    return "right" if is_same(document["predictions"][0], expected) else "wrong"


async def ask_until_told(plan: Plan, note: Callable[[Entry], None]) -> None:
    """Asks on every connection, one request after the other, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.gather(*(_connection(plan, number, stop, note) for number in range(plan.connections)))


async def _connection(plan: Plan, number: int, stop: asyncio.Event, note: Callable[[Entry], None]) -> None:
    models = sorted(plan.pictures)
    model, chance = models[number % len(models)], random.Random(plan.seed + number)
    kept = None if plan.keeps_alive else 0
    limits = httpx.Limits(max_keepalive_connections=kept)
    async with httpx.AsyncClient(base_url=plan.base_url, timeout=SILENT_S, limits=limits) as client:
        for picture, expected in itertools.cycle(plan.pictures[model]):
            if stop.is_set():
                return
            is_bad, leaves = chance.random() < plan.bad_share, chance.random() < plan.leave_share
            sent_s = time.monotonic()
            asking = _outcome(client, model, _BAD_PICTURE if is_bad else picture, expected, is_bad=is_bad)
            outcome = await _left(asking, chance.random() * 0.01) if leaves else await asking
            note(Entry(sent_s, time.monotonic(), model, outcome))
            pause_s = _PAUSE_S if outcome in ("broken", "unreachable") else plan.pause_s
            if pause_s:
                await asyncio.sleep(pause_s)


async def _outcome(client: httpx.AsyncClient, model: str, picture: bytes, expected: Any, *, is_bad: bool) -> Outcome:
    headers = {"Content-Type": "application/octet-stream"}
    try:
        answer = await client.post(f"/v1/models/{model}/predict", content=picture, headers=headers)
        return outcome_of(answer.status_code, answer.json(), expected, is_bad=is_bad)
    except httpx.ConnectError:
        return "unreachable"
    except httpx.TimeoutException:
        return "silent"
    except (httpx.HTTPError, ValueError):
        return "broken"


async def _left(asking: Any, after_s: float) -> Outcome:
    try:
        outcome: Outcome = await asyncio.wait_for(asking, after_s)
        return outcome
    except TimeoutError:
        return "left"


def known_answers(client: httpx.Client, model: str, pictures: Sequence[bytes]) -> list[tuple[bytes, Any]]:
    """Each picture with what a calm server answers."""
    known = []
    for picture in pictures:
        headers = {"Content-Type": "application/octet-stream"}
        answer = client.post(f"/v1/models/{model}/predict", content=picture, headers=headers).raise_for_status()
        known.append((picture, answer.json()["predictions"][0]))
    return known


@contextmanager
def asking(plan: Plan, folder: Path) -> Iterator[Callable[[], list[Entry]]]:
    """Yields, once requests flow, what ends them and returns their entries; without it they end with the context."""
    given, out = folder / "plan.json", folder / "entries.json"
    given.write_text(plan.to_json())
    command = [sys.executable, "-m", "tests.load.ledger", str(given), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != _BEGUN:
        raise AssertionError("the client ended before it asked")

    def ended() -> list[Entry]:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:  # each connection may have one that got no outcome
            process.kill()
            now_s = time.monotonic()
            return [*_read(out), *[Entry(now_s, now_s, "", "silent")] * plan.connections]
        return _read(out)

    try:
        yield ended
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _write(plan: Plan, out: Path) -> None:
    with out.open("w", buffering=1) as lines:  # so that little is left to write at the end, and nothing is lost
        count = 0

        def note(entry: Entry) -> None:
            nonlocal count
            count += 1
            lines.write(json.dumps([entry.sent_s, entry.end_s, entry.model, entry.outcome]) + "\n")
            if count == plan.connections:
                print(_BEGUN, flush=True)

        asyncio.run(ask_until_told(plan, note))


def _read(out: Path) -> list[Entry]:
    lines = out.read_text().splitlines(keepends=True)
    return [Entry(*json.loads(line)) for line in lines if line.endswith("\n")]


def counts(entries: Sequence[Entry]) -> dict[str, int]:
    return dict(Counter(each.outcome for each in entries).most_common())


def right_again_s(entries: Sequence[Entry], model: str, at_s: float) -> float | None:
    """Seconds after `at_s` from which on every request of the model that was sent was answered rightly.

    None: the last one still was not, or none was sent.
    """
    later = sorted((each for each in entries if each.model == model and each.end_s > at_s), key=lambda one: one.sent_s)
    good = ("right", "rejected", "left")
    bad = [index for index, each in enumerate(later) if each.outcome not in good]
    if not bad:
        return 0.0 if later else None
    return later[bad[-1] + 1].end_s - at_s if bad[-1] + 1 < len(later) else None


def p99_ms(entries: Sequence[Entry]) -> float:
    """Of the right answers; NaN without any."""
    right = [each.ms for each in entries if each.outcome == "right"]
    return percentiles(right, (99,))[0] if right else float("nan")


if __name__ == "__main__":
    _write(Plan.from_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
