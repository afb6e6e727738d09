"""Ten thousand requests, one in a hundred damaged: `python -m tests.load.corrupt --repository DIR --model NAME`.

Every good image must get the answer that the version gives without a server, every damaged one 422; exit code 1 else.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from saccade.service.cli.offline import OfflineModel, newest_version
from saccade.service.repository.trusted_keys import NO_SIGNATURES
from saccade.service.settings import Settings, core_count, resolved
from saccade.service.vision.parameters import DeadlineRule, complete, parse_given
from tests.load.bench import photographs
from tests.support.server import running_server

_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Given:
    """An image and what must come of it; None: it is damaged."""

    name: str
    content: bytes
    prediction: dict[str, Any] | None = None

    def read(self) -> bytes:
        return self.content


def damaged(index: int, body: bytes) -> bytes:
    """Cut off, overwritten, or no image at all."""
    match index % 3:
        case 0:
            return body[: len(body) // 2]
        case 1:
            return b"\xff\xd8\xff" + b"\x00" * 200
        case _:
            return b"no image"


def expected(repository: Path, model: str, bodies: list[bytes]) -> list[Given]:
    """Every image with the answer of the version in this process."""
    settings = resolved(Settings(repository=repository), core_count())
    with closing(OfflineModel(newest_version(repository, model, None, NO_SIGNATURES), settings)) as offline:
        parameters = complete(parse_given({}, is_text=True), offline.manifest, DeadlineRule(1e4, 1e4))
        images = [Given(str(index), body) for index, body in enumerate(bodies)]
        answers = list(offline.predict(images, parameters))
    return [Given(item.name, item.content, answer.prediction) for item, answer in zip(images, answers, strict=True)]


async def send_all(base_url: str, model: str, requests: list[Given]) -> Counter[str]:
    """How requests ended, in the words of the report."""
    ends: Counter[str] = Counter()
    waiting = iter(requests)

    async def connection(client: httpx.AsyncClient) -> None:
        for item in waiting:
            answer = await client.post(f"/v1/models/{model}/predict", content=item.content, headers=_RAW)
            ends[_end(item, answer)] += 1

    async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:
        await asyncio.gather(*(connection(client) for _ in range(_CONNECTIONS)))
    return ends


_RAW = {"Content-Type": "application/octet-stream"}


def _end(item: Given, answer: httpx.Response) -> str:
    if item.prediction is None:
        return "damaged: 422" if answer.status_code == 422 else f"damaged: {answer.status_code}"
    if answer.status_code != 200:
        return f"good: {answer.status_code}"
    return "good: right" if answer.json()["predictions"] == [item.prediction] else "good: another answer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    arguments = parser.parse_args()
    good = expected(arguments.repository, arguments.model, photographs())
    requests = [
        Given("damaged", damaged(index, good[index % len(good)].content))
        if index % 100 == 50
        else good[index % len(good)]
        for index in range(arguments.requests)
    ]
    options = {"backend": "onnxruntime", "device_threads": 0, "api_processes": 0}
    workspace = Path(tempfile.mkdtemp(prefix="saccade-corrupt-"))
    with running_server(arguments.repository, workspace, **options) as server:
        start_s = time.perf_counter()
        ends = asyncio.run(send_all(server.base_url, arguments.model, requests))
        seconds = time.perf_counter() - start_s
        server.wait_idle()
    for end, count in sorted(ends.items()):
        print(f"{end:22} {count}")
    print(f"{arguments.requests} requests in {seconds:.1f} s; all slots free afterwards")
    sys.exit(0 if set(ends) <= {"good: right", "damaged: 422"} else 1)


if __name__ == "__main__":
    main()
