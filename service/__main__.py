"""`python -m saccade.service` is `saccade`."""

from saccade.service.cli import main

main()
