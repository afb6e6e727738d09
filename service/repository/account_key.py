"""The key pair of the account that runs a program: the exporter signs with it by default, and servers of the account
trust it.
"""

from __future__ import annotations

import os
from pathlib import Path


def account_key_directory() -> Path | None:
    """Where this account's pair lies, whether made or not: `$XDG_CONFIG_HOME/saccade/signing`, else below `~/.config`.

    None for an account without a home directory.
    """
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if given.is_absolute():  # the specification of base directories has others ignored
        return given / "saccade" / "signing"
    try:
        return Path.home() / ".config" / "saccade" / "signing"
    except RuntimeError:
        return None


def account_public_keys() -> tuple[Path, ...]:
    """The public key files of this account; none where no pair was made, or another account owns it."""
    directory = account_key_directory()
    try:
        if directory is None or directory.stat().st_uid != os.geteuid():
            return ()
        return tuple(sorted(directory.glob("*.pub.pem")))
    except OSError:
        return ()
