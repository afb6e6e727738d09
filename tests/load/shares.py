"""Which requests a canary gets: `python -m tests.load.shares`.

Two servers on one repository, and as many routing keys as requests: the share that the canary answers, whether a key
stays where it was (asked again, and while the share grows), whether both servers agree, and how long both take to
follow a new desired state. Exit code 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from saccade.service.settings import Settings
from tests.support.images import red_png
from tests.support.server import Server, call_saccade, running_server, wait_until
from tests.support.versions import publish_fake

MODEL = "shared"
SHARES = (0.1, 0.25)  # the canary's, and what it grows to
MOST_OFF = 0.01
MOST_FOLLOWING_S = 2.0
_CLIENTS = 8
_FOLLOWED_TIMES = 10
_PICTURE = red_png(100)


def versions_by_key(server: Server, keys: Sequence[str]) -> dict[str, str]:
    """Sends a request of each key; returns the version that answered it."""

    def version(key: str) -> str:
        answer = server.predict(MODEL, _PICTURE, headers={"X-Routing-Key": key})
        return str(answer.raise_for_status().json()["version"])

    with ThreadPoolExecutor(_CLIENTS) as clients:
        return dict(zip(keys, clients.map(version, keys), strict=True))


def seconds_to_follow(servers: Sequence[Server], repository: Path, share: float) -> float:
    """Changes the canary's share; returns the seconds until every server has followed, those of the command too."""
    generations = [generation(server) for server in servers]
    start_s = time.monotonic()
    ended = call_saccade("rollout", "canary", MODEL, "2", "--share", str(share), "--repository", str(repository))
    if ended.returncode:
        raise SystemExit(ended.stderr)
    wait_until(
        lambda: all(generation(each) > before for each, before in zip(servers, generations, strict=True)),
        60.0,
        "both follow",
    )
    return time.monotonic() - start_s


def generation(server: Server) -> int:
    return int((server.model(MODEL).get("serving") or {}).get("generation", 0))


def run(count: int) -> bool:
    """Prints a line per figure; returns whether all limits are kept."""
    keys = [f"user {number}" for number in range(count)]
    with tempfile.TemporaryDirectory() as work, ExitStack() as held:
        repository = Path(work) / "repository"
        for version in (1, 2):
            publish_fake(repository, MODEL, version)
        call_saccade("rollout", "promote", MODEL, "1", "--repository", str(repository))
        servers = []
        for name in ("a", "b"):
            folder = Path(work) / name
            folder.mkdir()
            poll_ms = Settings.model_fields["repository_poll_ms"].default
            servers.append(held.enter_context(running_server(repository, folder, repository_poll_ms=poll_ms)))
        took = [seconds_to_follow(servers, repository, 0.5 + number / 100) for number in range(_FOLLOWED_TIMES)]
        took.append(seconds_to_follow(servers, repository, SHARES[0]))
        for each in servers:
            each.wait_state(MODEL, 2, "ready")
        first, other = (versions_by_key(each, keys) for each in servers)
        again = versions_by_key(servers[0], keys)
        took.append(seconds_to_follow(servers, repository, SHARES[1]))
        grown, grown_other = (versions_by_key(each, keys) for each in servers)
    mine = [key for key in keys if first[key] == "2"]
    share, grown_share = len(mine) / count, sum(version == "2" for version in grown.values()) / count
    stayed = sum(again[key] == first[key] for key in keys) / count
    kept = sum(grown[key] == "2" for key in mine) / len(mine)
    agreed = sum(first[key] == other[key] and grown[key] == grown_other[key] for key in keys) / count
    print(f"of {count} keys the canary answered {share:.2%} at {SHARES[0]:.0%}, {grown_share:.2%} at {SHARES[1]:.0%}")
    print(f"the same version again: {stayed:.2%} of keys; kept while the share grew: {kept:.2%} of the canary's")
    print(f"two servers chose the same version for {agreed:.2%} of keys, at both shares")
    print(f"both followed {len(took)} changes within {median(took):.2f} s (median), {max(took):.2f} s (longest)")
    is_exact = stayed == kept == agreed == 1.0
    return is_exact and abs(share - SHARES[0]) <= MOST_OFF and max(took) <= MOST_FOLLOWING_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    return 0 if run(parser.parse_args().requests) else 1


if __name__ == "__main__":
    sys.exit(main())
