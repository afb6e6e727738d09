"""The supervisor process: it starts and replaces all other processes, and decides what is loaded where."""
