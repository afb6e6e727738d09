"""What the processes of a server share: messages, shared memory, and how a child process is started and ended."""
