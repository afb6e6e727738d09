"""KServe's clients, unmodified: `python -m tests.load.kserve_clients`; exit code 1 for a wrong answer.

Their package has half a gigabyte, so it gets an environment below .saccade/kserve, which is made when it is missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.ports import free_port
from tests.support.server import ROOT, running_server
from tests.support.versions import publish_fake

REQUIREMENT = "kserve==0.21.0"
_INSTALL_TIMEOUT_S = 1200.0
_CALLS_TIMEOUT_S = 120.0


def made_environment(home: Path) -> Path:
    """Returns its interpreter. Raises CalledProcessError."""
    python = home / "bin" / "python"
    if not python.exists():
        print(f"environment of {REQUIREMENT}: {home}", flush=True)
        for arguments in (
            ("venv", "--python", sys.executable, home),
            ("pip", "install", "--python", python, REQUIREMENT),
        ):
            command = [sys.executable, "-m", "uv", *map(str, arguments), "--quiet"]
            subprocess.run(command, check=True, timeout=_INSTALL_TIMEOUT_S)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description="KServe's clients against a server.")
    parser.add_argument("--environment", type=Path, default=ROOT / ".saccade" / "kserve")
    python = made_environment(parser.parse_args().environment.absolute())
    port = free_port()
    with tempfile.TemporaryDirectory() as work:
        publish_fake(Path(work) / "repository", "classifier", 1)
        with running_server(Path(work) / "repository", Path(work), grpc_port=port) as server:
            calls = Path(__file__).with_name("kserve_calls.py")
            command = [str(python), str(calls), server.base_url, f"127.0.0.1:{port}"]
            ended = subprocess.run(command, cwd=work, timeout=_CALLS_TIMEOUT_S, check=False)
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
