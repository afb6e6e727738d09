"""Coverage-guided fuzzing: `python -m tests.fuzz --minutes 5` (`make fuzz MINUTES=5`) needs atheris, on Linux.

Each target runs in a process of its own for its share of the time, on inputs that reach new code in this package. What
it found to be worth keeping lies in .saccade/fuzz/TARGET for the next run, and an input that shows a finding beside it.
Exit code 1: there is a finding.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

KEPT = Path(".saccade/fuzz")
TARGET_NAMES = ("infer", "manifest", "serving", "messages", "picture", "json", "heads", "multipart")
_EXECUTED = re.compile(r"number_of_executed_units: (\d+)")
_LONGEST_RUN_S = 20  # of one input
_MOST_RSS_MB = 2048
_MOST_BYTES = 16_384  # of an input


def run_here(name: str, options: Sequence[str]) -> None:
    """Runs one target until libFuzzer ends the process."""
    import atheris
    import structlog

    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with atheris.instrument_imports(include=["saccade", "msgspec", "python_multipart", "PIL"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    limits = (f"-timeout={_LONGEST_RUN_S}", f"-rss_limit_mb={_MOST_RSS_MB}", f"-max_len={_MOST_BYTES}")
    atheris.Setup([name, *limits, f"-artifact_prefix={KEPT}/{name}-", *options, str(corpus)], target.run)
    atheris.Fuzz()


def fuzzed(name: str, seconds: float) -> bool:
    """Whether a target was without a finding. Says what it did."""
    options = (f"-max_total_time={max(1, round(seconds))}", "-print_final_stats=1", "-verbosity=0")
    command = [sys.executable, "-m", "tests.fuzz", "--here", name, *options]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    executed = _EXECUTED.search(ended.stderr)
    is_good = ended.returncode == 0 and executed is not None
    print(
        f"{name:10} {int(executed[1]) if executed else 0:>10,} executions: {'kept' if is_good else 'FINDING'}",
        flush=True,
    )
    if not is_good:
        print(ended.stdout[-2000:] + ended.stderr[-4000:])
    return is_good


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--here"]:
        run_here(arguments[1], arguments[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of all targets together")
    parser.add_argument("--only", choices=TARGET_NAMES, action="append", help="this target; may be repeated")
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: it has wheels for Linux on x86_64 alone; `make setup` installs it there")
        return 2
    names = given.only or TARGET_NAMES
    return int(not all([fuzzed(name, 60 * given.minutes / len(names)) for name in names]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
