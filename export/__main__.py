"""`saccade-export`, also as `python -m saccade.export`. Where its extra is missing, one sentence names it."""

from __future__ import annotations

import sys

FAILED = 1
_ADVICE = "pip install 'saccade-serving[export,cpu]' (beside onnxruntime-gpu: 'saccade-serving[export,gpu]')"


def main() -> None:
    """Entry point of the program."""
    from saccade.export.cli.program import main as program  # its commands import what the extra brings

    try:
        program()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "saccade":
            raise
        print(f"saccade-export: {error.name} is not installed: {_ADVICE}", file=sys.stderr)
        raise SystemExit(FAILED) from error


if __name__ == "__main__":
    main()
