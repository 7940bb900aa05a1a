"""What privacy costs: epsilon from 0.5 to none, VAE and WGAN-GP, on simulated vitals.

python -m launch.sweep --config=configs/sweeps/frontier.py          8 budgets x 2 models x 5 seeds
python -m launch.sweep --config=configs/sweeps/frontier.py:smoke    3 budgets x 2 models x 2 seeds in miniature
"""

from __future__ import annotations

from fedjax_health.sweep.design import Axis, Sweep

BUDGETS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
NO_PRIVACY = {"privacy.mechanism": "none"}  # another program: nothing is noised, nothing is accounted for


def get_config(variant: str = "") -> Sweep:
    """The sweep.

    Args:
      variant: "" or "smoke".
    """
    if variant not in ("", "smoke"):
        raise ValueError(f"configs/sweeps/frontier.py knows no variant {variant!r}; known: smoke")
    smoke = variant == "smoke"
    budgets = (1.0, 8.0) if smoke else BUDGETS
    settings = {"data.domains": ("vitals",), "attacks.shadows": 0, "seeds": 2 if smoke else 5}
    return Sweep(
        name="frontier_smoke" if smoke else "frontier",
        config="configs/iot.py:smoke" if smoke else "configs/iot.py",
        settings=settings,
        axes=(
            Axis("models", (("vae",), ("wgan_gp",))),
            Axis("budget", (*({"privacy.epsilon": epsilon} for epsilon in budgets), NO_PRIVACY)),
        ),
    )
