"""What `launch.compile` reads and says: amounts of memory, and a prediction in lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedjax_health.ahead.peaks import Peak
from fedjax_health.ahead.predict import Prediction
from fedjax_health.types import UserError

UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2.0**10, "MI": 2.0**20, "GI": 2.0**30, "TI": 2.0**40}


def amount(text: str) -> float:
    """Bytes in words, such as "16GB" (1e9 bytes each), "800 MB" or "2GiB" (2^30 bytes).

    Args:
      text: of --memory.

    Raises:
      UserError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*((?:[KMGT]I?)?)B?", text.strip().upper())
    if not found or float(found[1]) == 0.0:
        raise UserError(f"--memory={text!r} is no amount of memory; give one such as 16GB or 800MB")
    return float(found[1]) * UNITS[found[2]]


def describe(p: Prediction, peaks: Sequence[Peak]) -> str:
    """A prediction in lines.

    Args:
      p: of a training.
      peaks: devices whose times are wanted.
    """
    m = p.memory
    parts = {"records": m.data, "state": m.state, "intermediate values": m.rest, "other records": m.beside}
    lines = [
        f"{p.stage}: {p.rounds:,} rounds of {p.trips.live:.1f} clients, {p.clients_per_chunk} side by side on each of "
        f"{p.devices} devices",
        f"  FLOPs in all         {p.flops:.3g}",
        f"  a device             {p.device_flops:.3g} FLOPs, {p.device_bytes:.3g} bytes moved, {p.device_kernels:.3g} kernels",
        f"  memory of a device   {m.total / 1e6:,.1f} MB: "
        + ", ".join(f"{n} {b / 1e6:,.1f}" for n, b in parts.items()),
        f"  programs             {p.programs}, compiled in {p.compile_seconds:.1f} s",
    ]
    for peak in peaks:
        least, started = p.seconds(peak)
        fits = peak.memory_bytes == 0 or m.total <= peak.memory_bytes
        lines.append(
            f"  {peak.name:20} {least:.3g} s of arithmetic or memory"
            + f", {started:.3g} s with the start of every kernel" * (started > least)
            + "; does not fit its memory" * (not fits)
        )
    return "\n".join(lines + [f"  {p.once} loops of unknown length were counted once"] * (p.once > 0))
