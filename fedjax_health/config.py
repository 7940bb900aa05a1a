"""Static configuration: frozen dataclasses made from a ConfigDict, with cross-field checks that say what to mend."""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import Any

from ml_collections import config_dict

from fedjax_health import sections
from fedjax_health.types import UserError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How one model is trained in the federation; one of these a model.

    Attributes:
      rounds: T, the most rounds (> 0).
      rounds_per_chunk: R, rounds inside one compiled call (> 0); cannot change results.
      cohort: expected clients a round, > 0; the Poisson rate is cohort / clients.
      clients_per_chunk: clients trained side by side on one device (> 0); bounds memory, cannot change results.
      local: "epochs" (true local epochs, masked) or "steps" (a fixed number of batches drawn with replacement).
      local_epochs, local_steps: E or S, whichever `local` uses (> 0).
      batch_size: B (> 0).
      algorithm: "fedavg" or "fedadam" (server optimiser).
      client_optimizer: "sgd" or "adam", fresh in every round.
      client_learning_rate, server_learning_rate: > 0.
      step_clip_norm: bound on the norm of one local step's gradient (0 = none), against runaway clients.
      weighting: "equal" or "examples"; a private run needs "equal".
      l2_clip_norm: bound on a client's update (> 0).
      ema_decay: decay of the averaged published parameters, in [0, 1); 0 publishes the last iterate.
      convergence_window: rounds in the window of the convergence rule (0 = off).
      convergence_tolerance: stop when the mean public update norm changes by less than this fraction between windows.
    """

    rounds: int
    rounds_per_chunk: int
    cohort: int
    clients_per_chunk: int
    local: str
    local_epochs: int
    local_steps: int
    batch_size: int
    algorithm: str
    client_optimizer: str
    client_learning_rate: float
    server_learning_rate: float
    step_clip_norm: float
    weighting: str
    l2_clip_norm: float
    ema_decay: float
    convergence_window: int
    convergence_tolerance: float


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where records come from.

    Attributes:
      domains: names of sources: "vitals", "threats" (simulated); "physionet2019", "wustl_ehms", "mimic3", "table".
      path, schema: file or folder of a real source; schema file of "table".
      task: task of "table": "diagnosis" or "detection".
      label: label of "mimic3": "mortality", "sepsis", "diabetes" or "heart_failure".
      features: columns of "wustl_ehms": "all", "network" or "biometrics".
      population: "stored" or "procedural" (simulated only: records are made inside the program, any number of devices).
      num_clients: simulated training clients (validation and test clients come on top).
      validation_fraction, test_fraction: share of clients held out, of all (real) or on top of num_clients (simulated).
      audit_fraction: share of training clients left out at random in each seed: the non-members of the attacks.
      reference_clients: procedural only: training clients whose records are stored for evaluation.
    """

    domains: tuple[str, ...]
    path: str
    schema: str
    task: str
    label: str
    features: str
    population: str
    num_clients: int
    validation_fraction: float
    test_fraction: float
    audit_fraction: float
    reference_clients: int


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Variational autoencoder: hidden layer sizes, latent size, weight of the KL term, and how it is trained."""

    hidden: tuple[int, ...]
    latent: int
    kl_weight: float
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class GanConfig:
    """GAN or WGAN-GP.

    Attributes:
      hidden: hidden layer sizes of both networks.
      latent: size of the generator's noise.
      placement: "split" (clients train the discriminator, the server the generator) or "joint" (clients train both).
      penalty: weight of the gradient penalty (WGAN-GP only).
      generator_steps: server-side generator steps a round (split only).
      generator_batch: rows a generator step.
      generator_learning_rate: Adam step of the generator (split), or its SGD step on the client (joint).
      train: how the clients train.
    """

    hidden: tuple[int, ...]
    latent: int
    placement: str
    penalty: float
    generator_steps: int
    generator_batch: int
    generator_learning_rate: float
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """Diagnostic or detection MLP, trained through the same federated stack (evaluation only, never published)."""

    hidden: tuple[int, ...]
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of what a run publishes.

    Attributes:
      mechanism: "central_gaussian" (client-level DP-FedAvg) or "none" (no formal guarantee).
      epsilon: budget of all that a run publishes about one client, all domains and models together (> 0).
      delta: 0 means K^-1.1; else it must be below 1/K.
      noise_multiplier: 0 = calibrated so that the whole run meets epsilon; else used as given, and training stops at
        the budget.
      prior_noise_multiplier: noise of the class-share histogram, in units of its sensitivity (> 0).
    """

    mechanism: str
    epsilon: float
    delta: float
    noise_multiplier: float
    prior_noise_multiplier: float


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Sizes of the evaluation.

    Attributes:
      max_rows: most rows a similarity metric or a density attack looks at.
      synthetic_rows: rows published a model (0 = as many as real training rows, at most 50,000).
      max_false_positive_rate: operating point of the detector, chosen on validation clients, in (0, 1).
    """

    max_rows: int
    synthetic_rows: int
    max_false_positive_rate: float


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `seeds` federations are trained side by side; the first one is published, all give the intervals.

    `quick_compile` asks XLA for little optimisation: for runs that compile longer than they work.
    """

    name: str
    seed: int
    seeds: int
    quick_compile: bool
    data: DataConfig
    models: tuple[str, ...]
    vae: VaeConfig
    gan: GanConfig
    wgan_gp: GanConfig
    classifier: ClassifierConfig
    privacy: PrivacyConfig
    evaluation: EvaluationConfig


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


def from_config_dict(raw: config_dict.ConfigDict | dict[str, Any]) -> Config:
    """Converts and checks a config.

    Args:
      raw: what a config file's `get_config` returns, with overrides applied.

    Raises:
      UserError: unknown key (and the nearest known one), wrong type, or a broken rule.
    """
    config = sections.section(Config, raw, "")
    check(config)
    return config


def to_json(config: Config) -> str:
    """The whole config as sorted JSON: the identity of a workdir."""
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + "\n"
