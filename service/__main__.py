"""`python -m service` is `saccade`."""

from service.cli import main

main()
