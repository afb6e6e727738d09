"""Chooses which requests a canary answers: by a keyed hash, so that all replicas agree without speaking. Pure."""

from __future__ import annotations

import hashlib

from saccade.service.ipc.messages import ModelStatus

CANARY = "canary"  # the label of the canary
_POINTS = 1 << 64


def goes_to_canary(serving: ModelStatus, routing_key: bytes) -> bool:
    """Returns whether the canary answers requests of this key.

    A key that the canary has stays there while the share grows. Another salt chooses other keys.
    """
    return is_drawn(routing_key, serving.share, serving.salt.encode()[:64])


def is_drawn(key: bytes, share: float, salt: bytes) -> bool:
    """Returns whether a key is among the share of all keys that a salt chooses; a salt has at most 64 bytes."""
    digest = hashlib.blake2b(key, digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "big") < share * _POINTS
