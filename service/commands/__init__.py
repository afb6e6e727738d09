"""One file per subcommand of `saccade`; `repository engines` is in `engines.py`, and
`verification.py` is what `repository verify` checks of one version."""
