"""The four rollouts of the simulation, once each, with a real server: `python -m tests.load.rollout_processes`.

The fake backend serves an identical version, one that is wrong at 5 % of the images, one that takes 50 % longer, and
one that kills its worker at one image of 500. Exit code 1 when one of them does not end as it should.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.support.server import call_saccade, running_server, wait_until
from tests.support.traffic import flowing
from tests.support.versions import publish_fake

MODEL = "digits"
_STABLE = b"an image takes 10 ms"
_KINDS = {
    "identical": _STABLE,
    "5 % wrong answers": _STABLE + b"; one answer of 20 is wrong",
    "50 % slower": b"an image takes 15 ms",
    "crashes at 1 of 500": _STABLE + b"; one image of 500 crashes",
}
# One client, and no shadow where it would crash: what is lost with a worker is then the version's own request.
_OPTIONS = ("--steps", "20%,50%", "--min-requests", "200", "--min-time", "5", "--slower", "1.2")


def rolled_out(name: str, folder: Path, within_s: float) -> bool:
    """Carries one rollout to its end, and prints it; returns whether it ended as it should."""
    content, stable_after = _KINDS[name], 2 if name == "identical" else 1
    sample = "0" if name.startswith("crashes") else "0.5"
    repository = folder / "repository"
    publish_fake(repository, MODEL, 1, content=_STABLE, allowed_batch_sizes=(1,))
    publish_fake(repository, MODEL, 2, content=content, allowed_batch_sizes=(1,))
    path = repository / MODEL / "serving.json"
    call_saccade("rollout", "promote", MODEL, "1", "--repository", str(repository))
    with running_server(repository, folder) as server:
        call_saccade("rollout", "start", MODEL, "2", *_OPTIONS, "--sample", sample, "--repository", str(repository))
        start_s = time.monotonic()
        with flowing(server, MODEL, clients=1) as statuses:
            wait_until(lambda: "rollout" not in json.loads(path.read_text()), within_s, f"{name}: the rollout ends")
        seconds = time.monotonic() - start_s
        seen = server.metric("saccade_requests_total", model=MODEL, version="2")
    found = json.loads(path.read_text())
    lost = len(statuses) - statuses.count(200)
    print(
        f"{name:22} stable is {found['labels']['stable']} after {seconds:.0f} s; version 2 saw {seen:.0f} of "
        f"{len(statuses)} requests, {lost} failed; {found['reason']}",
        flush=True,
    )
    return bool(found["labels"]["stable"] == stable_after)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--within-s", type=float, default=1800.0, help="longest time of one rollout")
    parser.add_argument("--only", choices=_KINDS, help="one of the four")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(_KINDS)
    results = []
    for name in names:
        with tempfile.TemporaryDirectory() as work:
            results.append(rolled_out(name, Path(work), arguments.within_s))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
