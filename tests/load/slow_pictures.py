"""Neighbours of slow pictures: `python -m tests.load.slow_pictures`; exit code 1 when their p99 is above 1.5 times.

Photographs of 500x375 come at a constant rate. In turns they are alone, and beside clients that send the slowest
pictures which the decoder takes, one after another: a progressive JPEG of as many scans as are allowed, a large PNG and
a large WebP.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from PIL import Image

from saccade.service.bench.coordinator import ClientLimits
from saccade.service.bench.images import ImageFile
from saccade.service.bench.report import Report
from saccade.service.bench.schedule import Constant
from saccade.service.bench.session import Open, Session, measure
from saccade.service.bench.workload import ModelShare, RequestShape, endpoint_of, workload_of
from saccade.service.vision.image_decoder import ImageLimits, read_image
from tests.load.bench import photographs
from tests.support.images import encoded
from tests.support.server import Server, running_server
from tests.support.versions import publish_fake

MODEL = "noop"
MOST_P99 = 1.5
_WARM_UP_S = 1.0
_TIMEOUT_S = 30.0
_SIDE = 3800  # of the JPEG: 14.4 megapixels, which may have 100 scans
_LARGE_SIDE = 5900  # as many pixels as a PNG may have


def slow_pictures() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    picture = Image.fromarray(noise)
    jpeg = encoded(picture.resize((_SIDE, _SIDE)), "JPEG", progressive=True, quality=50)
    last = jpeg.rindex(b"\xff\xc4", 0, jpeg.rindex(b"\xff\xda"))
    large = picture.resize((_LARGE_SIDE, _LARGE_SIDE), Image.Resampling.NEAREST)
    return {
        "JPEG of 100 scans": jpeg[:-2] + jpeg[last:-2] * 90 + b"\xff\xd9",
        "PNG": encoded(large, "PNG", compress_level=1),
        "WebP": encoded(large, "WEBP", quality=10, method=0),
    }


@contextlib.contextmanager
def sent_again_and_again(url: str, pictures: Mapping[str, bytes], clients: int) -> Iterator[list[float]]:
    """Yields the seconds that each took, of those that were answered."""
    took_s: list[float] = []
    stop = threading.Event()

    def work(first: int) -> None:
        bodies = list(pictures.values())
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            for number in range(first, 1_000_000):
                if stop.is_set():
                    return
                start_s = time.monotonic()
                answer = client.post(url, content=bodies[number % len(bodies)])
                if answer.is_success:
                    took_s.append(time.monotonic() - start_s)
                else:
                    stop.wait(0.1)

    threads = [threading.Thread(target=work, args=(first,), daemon=True) for first in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield took_s
    finally:
        stop.set()
        for thread in threads:
            thread.join(_TIMEOUT_S)


def neighbours(server: Server, rate: float, seconds: float) -> Report:
    endpoint, shape = endpoint_of(server.base_url), RequestShape()
    images = tuple(ImageFile(f"{index:02d}.jpg", "image/jpeg", body) for index, body in enumerate(photographs()[:16]))
    session = Session(
        url=server.base_url,
        endpoint=endpoint,
        workload=workload_of([ModelShare(MODEL, 1.0, images)], endpoint, shape),
        shape=shape,
        limits=ClientLimits(1, 64, 1000, _TIMEOUT_S),
        seed=0,
        warm_up_s=_WARM_UP_S,
        objective_ms=1000.0,
    )
    return measure(session, Open(Constant(rate, _WARM_UP_S + seconds)), lambda live, s: None).report


def p99_ms(report: Report) -> float:
    assert report.latency is not None
    return report.latency.p99_ms


def main() -> None:
    parser = argparse.ArgumentParser(description="How neighbours of slow pictures fare.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=60.0, help="neighbours a second")
    parser.add_argument("--clients", type=int, default=2, help="that send slow pictures")
    parser.add_argument("--only", help="a word of the kinds of slow pictures to send")
    given = parser.parse_args()
    pictures = {name: data for name, data in slow_pictures().items() if (given.only or "") in name}
    for name, data in pictures.items():
        start_s = time.thread_time()
        read_image(data, ImageLimits())
        print(f"{name}: {len(data) / 2**20:.1f} MiB, decoded in {time.thread_time() - start_s:.2f} s of CPU")
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        publish_fake(Path(work) / "repository", MODEL, 1)
        with running_server(Path(work) / "repository", Path(work)) as server:
            for _ in range(given.rounds):
                alone = neighbours(server, given.rate, given.seconds)
                with sent_again_and_again(
                    f"{server.base_url}/v1/models/{MODEL}/predict", pictures, given.clients
                ) as took_s:
                    beside = neighbours(server, given.rate, given.seconds)
                ratios.append(p99_ms(beside) / p99_ms(alone))
                slow = f"{len(took_s)} slow pictures, the slowest in {max(took_s, default=0):.2f} s"
                failed = f"{beside.failed} failed"
                print(f"p99 alone {p99_ms(alone):.1f} ms, beside {p99_ms(beside):.1f} ms; {failed}; {slow}", flush=True)
    print(f"p99 {median(ratios):.2f} times that alone, asked {MOST_P99}, at a load of {os.getloadavg()[0]:.1f}")
    sys.exit(0 if median(ratios) <= MOST_P99 else 1)


if __name__ == "__main__":
    main()
