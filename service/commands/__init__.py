"""One file per subcommand of `saccade`; `verification.py` is what `repository verify` checks of one version."""
