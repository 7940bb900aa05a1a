"""The file of a run's secret: made once, for its owner alone, read again by an interrupted run, overwritten and removed."""

from __future__ import annotations

import json
import os
import stat

import numpy as np

from fedjax_health.types import UserError

FILE_NAME = "secret_key.json"
BYTES = 32
NEW_WORKDIR = "start in a new workdir, and count what this one has published as published"


def make_secret(path: str) -> None:
    """Draws 256 bits from the operating system into a file that was not there, mode 0600.

    Written in place and not renamed: no second copy is ever on the disk. A file that a crash left half written is refused by
    `read_secret`; nothing was trained with it.

    Args:
      path: of the file.

    Raises:
      FileExistsError: it is there; it is left as it is.
    """
    text = json.dumps({"secret": os.urandom(BYTES).hex()}) + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        _sync_folder(path)
    except BaseException:
        os.unlink(path)
        raise


def read_secret(path: str) -> np.ndarray:
    """The secret of `make_secret`.

    Args:
      path: of the file.

    Returns:
      u32[8].

    Raises:
      UserError: others may have read it, or it is damaged.
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise UserError(
            f"{path!r} has mode {mode:04o}, so that others may have read it and could subtract the noise; if nobody did, "
            f"'chmod 600' it, on a file system with permissions, else {NEW_WORKDIR}"
        )
    try:
        with open(path, encoding="ascii") as file:
            secret = bytes.fromhex(json.load(file)["secret"])
        if len(secret) != BYTES or not any(secret):
            raise ValueError(f"{len(secret)} bytes")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path!r} does not hold the {8 * BYTES} bits of a secret; put it back as it was, or {NEW_WORKDIR}"
        ) from error
    return np.frombuffer(secret, "<u4").astype(np.uint32)


def remove_secret(path: str) -> None:
    """Overwrites the file and removes it: what snapshots, backups or a copy-on-write disk still hold is out of reach.

    Args:
      path: of the file.
    """
    with open(path, "r+b") as file:
        file.write(b"0" * os.path.getsize(path))
        file.flush()
        os.fsync(file.fileno())
    os.unlink(path)
    _sync_folder(path)


def _sync_folder(path: str) -> None:
    """Has the folder of a file on the disk, so that a crash neither loses the file nor brings it back."""
    handle = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
