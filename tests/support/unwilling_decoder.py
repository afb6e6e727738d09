"""Stands where `decoding_child.py` stands; does with the pictures that arrive what the first line of each says.

`leave`: the picture is begun and given up. `hold`: it is begun, and nothing more is said. `end`: the process ends.
"""

from __future__ import annotations

import argparse
import os
import socket

from saccade.service.api.decoding_child import PID_BYTES, read_message

_held: list[socket.socket] = []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--count")
    control = socket.socket(fileno=parser.parse_args().control_fd)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        picture = socket.socket(fileno=descriptors[0])
        with picture.makefile("rwb") as file:
            file.write(os.getpid().to_bytes(PID_BYTES, "little"))
            file.flush()
            read_message(file)
            wish = file.readline()
        if wish == b"hold\n":
            _held.append(picture)
        else:
            picture.close()
        if wish == b"end\n":
            return


if __name__ == "__main__":
    main()
