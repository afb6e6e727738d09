"""`python -m saccade.export` is `saccade-export`. Promises: nothing of its own."""

from __future__ import annotations

from saccade.export.cli.program import main

if __name__ == "__main__":
    main()
