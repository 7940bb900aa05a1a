"""What devices do to a run: who they are, when they are on, and how long the server waits; a VAE on simulated vitals.

python -m launch.sweep --config=configs/sweeps/devices.py          18 points x 3 seeds
python -m launch.sweep --config=configs/sweeps/devices.py:smoke    4 points x 2 seeds in miniature
python -m launch.sweep --config=configs/sweeps/devices.py:small    the same 4 points x 3 seeds, 60 rounds: docs/sweeps.md
"""

from __future__ import annotations

from fedjax_health.sweep.design import Axis, Sweep

WEARABLES = {"devices.shares": (1.0, 0.0, 0.0, 0.0)}
MIXED = {"devices.shares": (0.6, 0.2, 0.1, 0.1)}
GATEWAYS = {"devices.shares": (0.0, 0.0, 0.0, 1.0)}


def get_config(variant: str = "") -> Sweep:
    """The sweep.

    Args:
      variant: "", "small" or "smoke".
    """
    if variant not in ("", "small", "smoke"):
        raise ValueError(f"configs/sweeps/devices.py knows no variant {variant!r}; known: small, smoke")
    smoke = variant != ""
    longer = {"vae.train.rounds": 60} if variant == "small" else {}
    return Sweep(
        name=f"devices_{variant}" if smoke else "devices",
        config="configs/iot.py:smoke" if smoke else "configs/iot.py",
        settings={
            "data.domains": ("vitals",),
            "models": ("vae",),
            "attacks.shadows": 0,
            "privacy.mechanism": "none",
            "seeds": 2 if variant == "smoke" else 3,
            **longer,
        },
        axes=(
            Axis("fleet", (WEARABLES, GATEWAYS) if smoke else (WEARABLES, MIXED, GATEWAYS)),
            Axis("devices.availability", ("always", "diurnal") if smoke else ("always", "markov", "diurnal")),
            Axis("devices.deadline_seconds", (5.0,) if smoke else (0.0, 5.0)),
        ),
    )
