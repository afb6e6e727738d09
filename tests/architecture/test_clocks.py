"""A wall clock that jumps changes nothing that is decided: what lasts is counted by the monotonic clock."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("api", "worker", "supervisor", "ipc", "backends", "vision")
# A span has to say when it began; everything else that asks for the time of day only writes it down.
MAY_READ = {"service/api/tracing/spans.py"}


def test_decisions_do_not_read_the_wall_clock() -> None:
    reading: list[str] = []
    for room in ROOMS:
        for file in sorted((ROOT / "service" / room).rglob("*.py")):
            place = str(file.relative_to(ROOT))
            for line in file.read_text("utf-8").splitlines():
                asks = "time.time(" in line or ("datetime.now(" in line and "isoformat(" not in line)
                if asks and place not in MAY_READ:
                    reading.append(f"{place}: {line.strip()}")

    assert reading == []
