"""The parent process: it starts and replaces the others and decides what is loaded where."""
