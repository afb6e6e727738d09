"""`python -m saccade.service` is `saccade`."""

from saccade.service.cli.program import main

main()
