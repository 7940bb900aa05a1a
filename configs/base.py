"""Every key with its default; scenario files start from here and override what differs."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from fedjax_health.checks import MODELS


def train(**changes: Any) -> dict[str, Any]:
    """One training's keys (fedjax_health.federation_config says what each means).

    Args:
      **changes: values other than the defaults.
    """
    values = {
        "rounds": 300,
        "rounds_per_chunk": 25,
        "cohort": 100,
        "sampler": "poisson",
        "clients_per_chunk": 0,
        "local": "steps",
        "local_epochs": 1,
        "local_steps": 4,
        "batch_size": 16,
        "algorithm": "fedavg",
        "server_optimizer": "adam",
        "client_optimizer": "sgd",
        "client_learning_rate": 0.02,
        "server_learning_rate": 0.01,
        "server_schedule": "constant",
        "proximal_weight": 0.01,
        "concurrency": 200,
        "max_staleness": 8,
        "step_clip_norm": 5.0,
        "l2_clip_norm": 0.3,
        "clip_quantile": 0.0,
        "clip_learning_rate": 0.2,
        "ema_decay": 0.97,
        "convergence_window": 0,
        "convergence_tolerance": 0.01,
        "aggregation": {
            "rule": "mean",
            "weighting": "equal",
            "assumed_attackers": 0.2,
            "attack": "none",
            "attackers": 0.0,
            "attack_scale": 1.0,
            "secure": "none",
            "secure_bits": 16,
            "secure_degree": 0,
        },
        "compression": {
            "rotate": False,
            "sparsify": "none",
            "keep_fraction": 0.1,
            "error_feedback": False,
            "bits": 0,
            "sign": False,
            "down_bits": 0,
        },
        "hierarchy": {"institutions": 0, "period": 5},
    }
    unknown = set(changes) - set(values)
    assert not unknown, unknown
    return values | changes


def generative(config: Any) -> list[Any]:
    """The sections of all generative models.

    Args:
      config: of `get_config`.
    """
    return [config[name] for name in MODELS]


def get_config() -> Any:
    """The defaults, a ConfigDict (whose keys no type checker knows): simulated vitals, VAE and WGAN-GP, client-level DP."""
    gan = {
        "hidden": (64, 64),
        "dense": "auto",
        "latent": 16,
        "placement": "split",
        "penalty": 10.0,
        "generator_steps": 1,
        "generator_batch": 256,
        "generator_learning_rate": 1e-3,
        "discriminator_steps": "fixed",
        "generator": "direct",
    }
    critic = {"rounds": 600, "batch_size": 24, "client_learning_rate": 0.05, "l2_clip_norm": 0.5}
    return ConfigDict(
        {
            "name": "base",
            "seed": 0,
            "seeds": 3,
            "quick_compile": False,
            "data": {
                "domains": ("vitals",),
                "path": "",
                "schema": "",
                "task": "diagnosis",
                "label": "mortality",
                "features": "all",
                "population": "stored",
                "num_clients": 10_000,
                "validation_fraction": 0.05,
                "test_fraction": 0.1,
                "audit_fraction": 0.2,
                "reference_clients": 4_000,
                "representation": "auto",
                "partition": {
                    "scheme": "natural",
                    "num_clients": 1_000,
                    "alpha": 0.5,
                    "sites": 0,
                    "site_gain": 0.1,
                    "site_offset": 0.2,
                    "site_noise": 0.1,
                    "site_keep": 0.5,
                },
            },
            "models": ("vae", "wgan_gp"),
            # one local step: with more, the learned scale fits each client's own narrow spread, and the average is too narrow
            "vae": {
                "hidden": (64, 64),
                "dense": "auto",
                "latent": 6,
                "kl_weight": 0.7,
                "decoder": "independent",
                "train": train(
                    rounds=600,
                    rounds_per_chunk=50,
                    local_steps=1,
                    batch_size=24,
                    client_learning_rate=0.1,
                    l2_clip_norm=0.25,
                    ema_decay=0.99,
                ),
            },
            "gan": {**gan, "train": train(**critic)},
            "wgan_gp": {**gan, "train": train(**critic)},
            "acgan": {**gan, "train": train(**critic)},
            "medgan": {**gan, "latent": 8, "reconstruction_weight": 0.5, "train": train(**critic)},
            "diffusion": {
                "hidden": (64, 64),
                "dense": "auto",
                "steps": 50,
                "train": train(
                    rounds=600,
                    rounds_per_chunk=50,
                    local_steps=1,
                    batch_size=24,
                    client_learning_rate=0.1,
                    l2_clip_norm=0.25,
                    ema_decay=0.99,
                ),
            },
            # privacy is paid by the vote: noise grows with the root of the votes, what it must not drown with the teachers
            "pategan": {
                "hidden": (64, 64),
                "dense": "auto",
                "latent": 16,
                "teachers": 400,
                "votes": 128,
                "threshold": "mean",
                "generator_steps": 1,
                "generator_batch": 256,
                "generator_learning_rate": 5e-4,
                "train": train(
                    cohort=400,
                    sampler="fixed",
                    batch_size=24,
                    client_learning_rate=0.1,
                    server_learning_rate=0.02,
                    l2_clip_norm=1.0,
                ),
            },
            "classifier": {
                "hidden": (64, 64),
                "dense": "auto",
                "train": train(
                    rounds=100,
                    batch_size=16,
                    local_steps=4,
                    client_learning_rate=0.05,
                    l2_clip_norm=100.0,
                    ema_decay=0.9,
                ),
                "loss": "cross_entropy",
                "focal_gamma": 2.0,
                "class_weights": "none",
                "input_bound": 0.0,
                "input_dropout": 0.0,
            },
            "devices": {
                "shares": (0.6, 0.2, 0.1, 0.1),
                "availability": "always",
                "on_fraction": 0.7,
                "mean_on_seconds": 3_600.0,
                "failures_per_hour": 0.0,
                "deadline_seconds": 0.0,
                "over_commitment": 1.0,
            },
            "privacy": {
                "mechanism": "central_gaussian",
                "epsilon": 8.0,
                "delta": 0.0,
                "noise_multiplier": 0.0,
                "prior_noise_multiplier": 20.0,
                "representation_share": 0.45,
                "canaries": 0,
                "noise_bands": 4,
                "least_share": 0.75,
                "randomness": "seed",
                "trial": 0,
            },
            "evaluation": {
                "max_rows": 3_000,
                "synthetic_rows": 0,
                "max_false_positive_rate": 0.05,
                "rivals": (),
                "augmentation": "fixed",
                "real_fractions": (1.0,),
                "controls": ("class-weights", "random-oversampling", "smote"),
                "unknown_share": 0.2,
            },
            "attacks": {"shadows": 0, "shadow_targets": 1_000, "update_rounds": 0, "generators": 0},
        },
        convert_dict=True,
    )
