"""The key pair of the account that runs a program: the exporter signs with it by default, and servers of the account
trust it.
"""

from __future__ import annotations

import logging
import os
import shlex
import stat
from pathlib import Path

_log = logging.getLogger(__name__)  # not structlog's, which writes to the stdout of programs that print JSON


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


def open_folder_reason(directory: Path) -> str | None:
    """Why keys in a folder may be anybody's: others may write to it. Raises OSError for a folder that is not there."""
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other accounts may write to {directory}: run `chmod 700 {shlex.quote(str(directory))}`"
    return None


def account_public_keys() -> tuple[Path, ...]:
    """The public key files of this account; none where no pair was made, or another account owns or may write it.

    Says a folder that others may write to on the log.
    """
    directory = account_key_directory()
    try:
        if directory is None or directory.stat().st_uid != os.geteuid():
            return ()
        reason = open_folder_reason(directory)
        keys = tuple(sorted(directory.glob("*.pub.pem")))
    except OSError:
        return ()
    if reason and keys:
        _log.warning("the account's own key is not trusted: %s", reason)
    return () if reason else keys
