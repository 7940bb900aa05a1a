"""What unlike clients cost: Dirichlet label skew x feature skew of sites, a VAE on simulated vitals, epsilon 8.

python -m launch.sweep --config=configs/sweeps/heterogeneity.py          12 points x 3 seeds
python -m launch.sweep --config=configs/sweeps/heterogeneity.py:smoke    4 points x 2 seeds in miniature
python -m launch.sweep --config=configs/sweeps/heterogeneity.py:small    the same 4 points x 3 seeds, 60 rounds: docs/sweeps.md
"""

from __future__ import annotations

from fedjax_health.sweep.design import Axis, Sweep

ALIKE = {"data.partition.sites": 0}
MILD = {"data.partition.sites": 10}
STRONG = {"data.partition.sites": 10, "data.partition.site_gain": 0.3, "data.partition.site_offset": 0.6}


def get_config(variant: str = "") -> Sweep:
    """The sweep.

    Args:
      variant: "", "small" or "smoke".
    """
    if variant not in ("", "small", "smoke"):
        raise ValueError(f"configs/sweeps/heterogeneity.py knows no variant {variant!r}; known: small, smoke")
    smoke = variant != ""
    longer = {"vae.train.rounds": 60} if variant == "small" else {}
    batch = 12  # of clients that share 300 devices' records anew: the largest may hold fewer than one device's
    return Sweep(
        name=f"heterogeneity_{variant}" if smoke else "heterogeneity",
        config="configs/iot.py:smoke" if smoke else "configs/iot.py",
        settings={
            "data.domains": ("vitals",),
            "models": ("vae",),
            "attacks.shadows": 0,
            "data.partition.scheme": "dirichlet",
            "data.partition.num_clients": 300 if smoke else 10_000,
            **({"vae.train.batch_size": batch, "classifier.train.batch_size": batch} if smoke else {}),
            "seeds": 2 if variant == "smoke" else 3,
            **longer,
        },
        axes=(
            Axis("data.partition.alpha", (0.1, 10.0) if smoke else (0.1, 0.5, 2.0, 100.0)),
            Axis("sites", (ALIKE, STRONG) if smoke else (ALIKE, MILD, STRONG)),
        ),
    )
