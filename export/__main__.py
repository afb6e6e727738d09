"""`python -m export` is `saccade-export`. Promises: nothing of its own."""

from __future__ import annotations

from export.cli import main

if __name__ == "__main__":
    main()
