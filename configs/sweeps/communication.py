"""What traffic buys: algorithm x compression x cohort, without privacy, a VAE on simulated vitals.

python -m launch.sweep --config=configs/sweeps/communication.py          27 points x 3 seeds, a program for each
python -m launch.sweep --config=configs/sweeps/communication.py:smoke    4 points x 2 seeds in miniature
python -m launch.sweep --config=configs/sweeps/communication.py:small    the same 4 points x 3 seeds, 60 rounds: docs/sweeps.md

Each of these is a choice of the program, so each is compiled by itself; a piece is a job for a worker.
"""

from __future__ import annotations

from fedjax_health.sweep.design import Axis, Sweep

PLAIN = {"vae.train.compression.sparsify": "none"}
TOP = {
    "vae.train.compression.sparsify": "top_k",
    "vae.train.compression.keep_fraction": 0.1,
    "vae.train.compression.error_feedback": True,
}
QUANTISED = {"vae.train.compression.rotate": True, "vae.train.compression.bits": 4}


def get_config(variant: str = "") -> Sweep:
    """The sweep.

    Args:
      variant: "", "small" or "smoke".
    """
    if variant not in ("", "small", "smoke"):
        raise ValueError(f"configs/sweeps/communication.py knows no variant {variant!r}; known: small, smoke")
    smoke = variant != ""
    longer = {"vae.train.rounds": 60} if variant == "small" else {}
    algorithms = ("fedavg", "scaffold") if smoke else ("fedavg", "fedprox", "scaffold")
    return Sweep(
        name=f"communication_{variant}" if smoke else "communication",
        config="configs/iot.py:smoke" if smoke else "configs/iot.py",
        settings={
            "data.domains": ("vitals",),
            "models": ("vae",),
            "attacks.shadows": 0,
            "privacy.mechanism": "none",
            "vae.train.step_clip_norm": 0.0,  # SCAFFOLD is exact for plain SGD alone
            "seeds": 2 if variant == "smoke" else 3,
            **longer,
        },
        axes=(
            Axis("vae.train.algorithm", algorithms),
            Axis("compression", (PLAIN, QUANTISED) if smoke else (PLAIN, TOP, QUANTISED)),
            Axis("vae.train.cohort", (40,) if smoke else (30, 100, 300)),
        ),
    )
