"""One file per subcommand of `saccade`."""
