"""The engine of one process: pieces one after the other, over all devices of the machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fedjax_health.sweep.pieces import Piece
from fedjax_health.sweep.run_piece import run_piece

LOG = logging.getLogger("fedjax_health")


def run_local(pieces: Sequence[Piece], folder: str) -> None:
    """Runs every piece whose result is not there yet.

    Args:
      pieces: of the sweep.
      folder: of the sweep.
    """
    for number, piece in enumerate(pieces, 1):
        LOG.info("piece %d of %d (%s): %d runs", number, len(pieces), piece.name, len(piece.points))
        run_piece(piece, folder)
