"""What the processes of a server share: messages, shared memory, and how a child is started and ended."""
