"""Every generative model of the registry in miniature, and the numbers that they read."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import toy

from fedjax_health import build, checks
from fedjax_health.config import DiffusionConfig, GanConfig, MedganConfig, PateganConfig, VaeConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.classifier import make_classifier

L = 2  # label classes
HYPER = {
    "client_learning_rate": jnp.float32(0.1),
    "generator_learning_rate": jnp.float32(0.02),
    "kl_weight": jnp.float32(0.7),
    "penalty": jnp.float32(10.0),
    "reconstruction_weight": jnp.float32(0.5),
    "class_prior": jnp.array([0.6, 0.4], jnp.float32),
}
TRAIN = toy.train_config(rounds=1, rounds_per_chunk=1, cohort=1, batch_size=5, local_steps=1)
JOINT, SPLIT = (tuple(f"{gan}-{placement}" for gan in checks.GANS) for placement in ("joint", "split"))
NAMES = (
    "vae",
    "vae-causal",
    "diffusion",
    "pategan-split",
    *SPLIT,
    *JOINT,
    "wgan_gp-causal-split",
)


def make(name: str, layout: Layout, hidden: tuple[int, ...] = (6,), latent: int = 2, rows: int = 8) -> Any:
    """A model of the registry by name, generator and placement, such as "gan-split"; or the classifier; `rows` a step."""
    if name == "classifier":
        return make_classifier(layout.dim, L, (6,))
    kind, *rest = name.split("-")
    placement = rest[-1] if rest else ""
    if kind == "vae":
        section: Any = VaeConfig(hidden, "auto", latent, 1.0, TRAIN, placement or "independent")
    elif kind == "diffusion":
        section = DiffusionConfig(hidden, "auto", 10, TRAIN)
    elif kind == "pategan":
        section = PateganConfig(hidden, "auto", latent, 4, 8, "mean", 2, rows, 0.02, TRAIN)
    else:
        of_gan = MedganConfig if kind == "medgan" else GanConfig
        section = of_gan(hidden, "auto", latent, placement, 10.0, 2, rows, 0.02, TRAIN)
        section = dataclasses.replace(section, generator="causal" if "causal" in rest else "direct")
    return build.MODELS[kind](layout, L, section)
