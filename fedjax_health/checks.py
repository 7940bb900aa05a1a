"""Cross-field rules of a config; the first one broken is told with its key, its value and the remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from fedjax_health.types import UserError

if TYPE_CHECKING:  # config imports this module
    from fedjax_health.config import Config, TrainConfig


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _check_choice(path: str, value: str, allowed: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(value, allowed, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    _require(value in allowed, f"config {path}={value!r} is not one of {', '.join(allowed)}{hint}")


def _check_train(c: TrainConfig, path: str, private: bool) -> None:
    for name in (
        "rounds",
        "rounds_per_chunk",
        "cohort",
        "clients_per_chunk",
        "local_epochs",
        "local_steps",
        "batch_size",
    ):
        value = getattr(c, name)
        _require(value > 0, f"config {path}.{name}={value} must be positive")
    for name in ("client_learning_rate", "server_learning_rate", "l2_clip_norm"):
        value = getattr(c, name)
        _require(value > 0, f"config {path}.{name}={value} must be positive")
    _check_choice(f"{path}.local", c.local, ("epochs", "steps"))
    _check_choice(f"{path}.algorithm", c.algorithm, ("fedavg", "fedadam"))
    _check_choice(f"{path}.client_optimizer", c.client_optimizer, ("sgd", "adam"))
    _check_choice(f"{path}.weighting", c.weighting, ("equal", "examples"))
    _require(c.step_clip_norm >= 0, f"config {path}.step_clip_norm={c.step_clip_norm} must be 0 (none) or positive")
    _require(
        c.rounds % c.rounds_per_chunk == 0,
        f"config {path}.rounds={c.rounds} must be a multiple of rounds_per_chunk={c.rounds_per_chunk}; change either",
    )
    _require(0 <= c.ema_decay < 1, f"config {path}.ema_decay={c.ema_decay} must be in [0, 1)")
    _require(c.convergence_window >= 0, f"config {path}.convergence_window={c.convergence_window} must be 0 or more")
    _require(
        c.convergence_tolerance >= 0, f"config {path}.convergence_tolerance={c.convergence_tolerance} must be 0 or more"
    )
    _require(
        not (private and c.weighting != "equal"),
        f"config {path}.weighting={c.weighting!r} makes a client's weight depend on its data, which the accountant does "
        "not cover; set it to 'equal' or privacy.mechanism to 'none'",
    )


def check(c: Config) -> None:
    """Cross-field rules.

    Args:
      c: converted config.

    Raises:
      UserError: the first rule broken; names the key, its value and the remedy.
    """
    known = ("vae", "gan", "wgan_gp")
    _require(c.seed >= 0, f"config seed={c.seed} must be 0 or more")
    _require(c.seeds > 0, f"config seeds={c.seeds} must be positive; 3 or more give intervals")
    _require(len(c.models) > 0, "config models is empty; give at least one of " + ", ".join(known))
    for model in c.models:
        _check_choice("models", model, known)
    _require(len(set(c.models)) == len(c.models), f"config models={c.models} names a model twice")
    d, p, e = c.data, c.privacy, c.evaluation
    _require(len(d.domains) > 0, "config data.domains is empty; name at least one source")
    simulated = set(d.domains) <= {"vitals", "threats"}
    _check_choice("data.population", d.population, ("stored", "procedural"))
    _check_choice("data.task", d.task, ("diagnosis", "detection"))
    _require(
        simulated or d.population == "stored",
        "config data.population='procedural' is for simulated domains only; use 'stored'",
    )
    _require(not simulated or d.num_clients > 1, f"config data.num_clients={d.num_clients} must be at least 2")
    _require(d.reference_clients > 0, f"config data.reference_clients={d.reference_clients} must be positive")
    for name in ("validation_fraction", "test_fraction", "audit_fraction"):
        value = getattr(d, name)
        _require(0 < value < 1, f"config data.{name}={value} must be between 0 and 1, both excluded")
    held_out = d.validation_fraction + d.test_fraction
    _require(
        simulated or held_out < 1,
        f"config data: validation and test fractions sum to {held_out}; leave clients to train",
    )
    _check_choice("privacy.mechanism", p.mechanism, ("central_gaussian", "none"))
    private = p.mechanism != "none"
    if private:
        _require(
            p.epsilon > 0,
            f"config privacy.epsilon={p.epsilon} must be positive; for no privacy set privacy.mechanism='none'",
        )
        _require(0 <= p.delta < 1, f"config privacy.delta={p.delta} must be in [0, 1); 0 means K^-1.1")
        _require(
            p.noise_multiplier >= 0,
            f"config privacy.noise_multiplier={p.noise_multiplier} must be 0 (calibrate) or positive",
        )
        _require(
            p.prior_noise_multiplier > 0,
            f"config privacy.prior_noise_multiplier={p.prior_noise_multiplier} must be positive",
        )
    for name in ("vae", "gan", "wgan_gp"):
        model = getattr(c, name)
        _require(
            all(h > 0 for h in model.hidden) and len(model.hidden) > 0,
            f"config {name}.hidden={model.hidden} must be positive sizes",
        )
        _require(model.latent > 0, f"config {name}.latent={model.latent} must be positive")
        _check_train(model.train, f"{name}.train", private)
    for name in ("gan", "wgan_gp"):
        model = getattr(c, name)
        _check_choice(f"{name}.placement", model.placement, ("split", "joint"))
        for field in ("penalty", "generator_steps", "generator_batch", "generator_learning_rate"):
            _require(getattr(model, field) > 0, f"config {name}.{field}={getattr(model, field)} must be positive")
    _require(c.vae.kl_weight > 0, f"config vae.kl_weight={c.vae.kl_weight} must be positive")
    _require(
        all(h > 0 for h in c.classifier.hidden),
        f"config classifier.hidden={c.classifier.hidden} must be positive sizes",
    )
    _check_train(c.classifier.train, "classifier.train", False)
    _require(
        e.max_rows >= 100,
        f"config evaluation.max_rows={e.max_rows} must be at least 100 for the metrics to mean anything",
    )
    _require(e.synthetic_rows >= 0, f"config evaluation.synthetic_rows={e.synthetic_rows} must be 0 or more")
    rate = e.max_false_positive_rate
    _require(0 < rate < 1, f"config evaluation.max_false_positive_rate={rate} must be between 0 and 1, both excluded")
