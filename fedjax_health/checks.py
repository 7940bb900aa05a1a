"""Cross-field rules of a config; the first one broken is told with its key, its value and the remedy."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

from fedjax_health.types import UserError

if TYPE_CHECKING:  # config imports this module
    from fedjax_health.config import Config
    from fedjax_health.federation_config import DevicesConfig, PartitionConfig, TrainConfig

ALGORITHMS = ("fedavg", "fedprox", "scaffold", "fednova", "mime_lite", "fedbuff")
PLAIN_SGD = ("scaffold", "fednova", "mime_lite")
RULES = (
    "mean", "fixed_point", "norm_bound", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median",
)  # fmt: skip
ATTACKS = ("none", "label_flip", "backdoor", "sign_flip", "gaussian", "alie", "ipm")


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _check_choice(path: str, value: str, allowed: tuple[str, ...]) -> None:
    near = difflib.get_close_matches(value, allowed, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    _require(value in allowed, f"config {path}={value!r} is not one of {', '.join(allowed)}{hint}")


def _positive(path: str, section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        _require(value > 0, f"config {path}.{name}={value} must be positive")


def _check_train(c: TrainConfig, path: str, mechanism: str) -> None:
    _positive(path, c, "rounds", "rounds_per_chunk", "cohort", "local_epochs", "local_steps", "batch_size")
    _positive(path, c, "client_learning_rate", "server_learning_rate", "l2_clip_norm", "concurrency", "max_staleness")
    _require(
        c.clients_per_chunk >= 0, f"config {path}.clients_per_chunk={c.clients_per_chunk} must be 0 (auto) or positive"
    )
    _require(c.proximal_weight >= 0, f"config {path}.proximal_weight={c.proximal_weight} must be 0 or more")
    _check_choice(f"{path}.local", c.local, ("epochs", "steps"))
    _check_choice(f"{path}.algorithm", c.algorithm, ALGORITHMS)
    _check_choice(f"{path}.sampler", c.sampler, ("poisson", "fixed", "full"))
    _check_choice(f"{path}.server_optimizer", c.server_optimizer, ("sgd", "adam", "yogi", "adagrad"))
    _check_choice(f"{path}.client_optimizer", c.client_optimizer, ("sgd", "adam"))
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
        c.algorithm not in PLAIN_SGD or (c.client_optimizer == "sgd" and not c.step_clip_norm),
        f"config {path}.algorithm={c.algorithm!r} is exact for plain SGD only; set client_optimizer='sgd' and "
        "step_clip_norm=0",
    )
    _check_aggregation(c, path)
    _check_compression(c, path)
    _check_hierarchy(c, path)
    if mechanism != "none":
        _check_private(c, path, mechanism == "record_gaussian")


def _check_aggregation(c: TrainConfig, path: str) -> None:
    a, path = c.aggregation, f"{path}.aggregation"
    _check_choice(f"{path}.rule", a.rule, RULES)
    _check_choice(f"{path}.weighting", a.weighting, ("equal", "examples"))
    _check_choice(f"{path}.attack", a.attack, ATTACKS)
    _require(
        0 <= a.assumed_attackers < 0.5, f"config {path}.assumed_attackers={a.assumed_attackers} must be in [0, 0.5)"
    )
    _require(0 <= a.attackers < 1, f"config {path}.attackers={a.attackers} must be in [0, 1)")
    _require(a.attack_scale > 0, f"config {path}.attack_scale={a.attack_scale} must be positive")
    _require(
        a.weighting == "equal" or a.rule in ("mean", "norm_bound", "geometric_median"),
        f"config {path}.weighting='examples': the rule {a.rule!r} counts every client once; set it to 'equal'",
    )
    _require(
        a.rule != "fixed_point" or (a.attack == "none" and math.isfinite(c.l2_clip_norm)),
        f"config {path}.rule='fixed_point' needs a finite l2_clip_norm and knows no attack",
    )
    _require(
        c.algorithm != "fedbuff" or a.rule == "mean",
        f"config {path}.rule={a.rule!r}: fedbuff weights updates by staleness, which only 'mean' knows",
    )


def _check_compression(c: TrainConfig, path: str) -> None:
    z, path = c.compression, f"{path}.compression"
    _check_choice(f"{path}.sparsify", z.sparsify, ("none", "top_k", "rand_k"))
    _require(0 < z.keep_fraction <= 1, f"config {path}.keep_fraction={z.keep_fraction} must be in (0, 1]")
    for name in ("bits", "down_bits"):
        value = getattr(z, name)
        _require(0 <= value <= 16, f"config {path}.{name}={value} must be 0 (float32) or 1 to 16")
    _require(not (z.sign and z.bits), f"config {path}.sign and bits={z.bits} exclude each other; set one of them to 0")
    _require(
        not z.rotate or (c.algorithm != "fedbuff" and c.aggregation.rule not in ("median", "trimmed_mean")),
        f"config {path}.rotate: the rotation of a round is shared by all its updates, and mixes their coordinates; turn it "
        "off for fedbuff, median and trimmed_mean",
    )
    lossy = z.rotate or z.sparsify != "none" or z.bits or z.sign
    _require(
        not lossy or c.algorithm != "fednova",
        f"config {path}: fednova sends a number of steps beside its update, which must not be compressed; turn it off",
    )


def _check_hierarchy(c: TrainConfig, path: str) -> None:
    h, path = c.hierarchy, f"{path}.hierarchy"
    _require(h.institutions >= 0, f"config {path}.institutions={h.institutions} must be 0 (none) or positive")
    _positive(path, h, "period")
    if h.institutions:
        plain = c.algorithm in ("fedavg", "fedprox") and c.aggregation.rule == "mean" and c.aggregation.attack == "none"
        _require(
            plain, f"config {path}.institutions={h.institutions} needs fedavg or fedprox, rule='mean' and no attack"
        )
        _require(c.compression.down_bits == 0, f"config {path}: institutions send models as they are; set down_bits=0")
    down = c.compression.down_bits
    _require(
        c.algorithm != "fedbuff" or (not h.institutions and down == 0),
        f"config {path}: fedbuff has no institutions and sends models as they are; set institutions=0 and down_bits=0",
    )


def _check_private(c: TrainConfig, path: str, records: bool) -> None:
    a = c.aggregation
    of_records = (
        (
            c.algorithm == "fedavg",
            f"algorithm={c.algorithm!r}",
            "'fedavg': others touch a record more than once a step",
        ),
        (c.local == "epochs", f"local={c.local!r}", "'epochs': a batch may hold a record only once"),
    )
    covered = (
        *(of_records if records else ()),
        (a.weighting == "equal", f"aggregation.weighting={a.weighting!r}", "'equal': a weight may not depend on data"),
        (
            a.rule == "mean" and a.attack == "none",
            f"aggregation.rule={a.rule!r} with attack={a.attack!r}",
            "'mean', 'none'",
        ),
        (c.sampler != "fixed", "sampler='fixed'", "'poisson' or 'full'"),
        (c.algorithm not in ("fednova", "fedbuff"), f"algorithm={c.algorithm!r}", "one whose message is a bounded sum"),
        (c.hierarchy.institutions == 0, f"hierarchy.institutions={c.hierarchy.institutions}", "0"),
        (math.isfinite(c.l2_clip_norm), f"l2_clip_norm={c.l2_clip_norm}", "a finite bound"),
    )
    for ok, what, remedy in covered:
        _require(
            ok, f"config {path}.{what} is not covered by the accountant; set {remedy}, or privacy.mechanism to 'none'"
        )


def _check_devices(d: DevicesConfig, private: bool) -> None:
    _require(
        len(d.shares) == 4 and min(d.shares) >= 0 and abs(sum(d.shares) - 1) < 1e-6,
        f"config devices.shares={d.shares} must be four shares that sum to 1 (wearable, LTE phone, Wi-Fi phone, gateway)",
    )
    _check_choice("devices.availability", d.availability, ("always", "markov", "diurnal"))
    _require(0 < d.on_fraction <= 1, f"config devices.on_fraction={d.on_fraction} must be in (0, 1]")
    _positive("devices", d, "mean_on_seconds")
    for name in ("failures_per_hour", "deadline_seconds"):
        value = getattr(d, name)
        _require(value >= 0, f"config devices.{name}={value} must be 0 or more")
    _require(d.over_commitment >= 1, f"config devices.over_commitment={d.over_commitment} must be at least 1")
    _require(
        not private or d.over_commitment == 1,
        f"config devices.over_commitment={d.over_commitment} lets one client's speed decide who else takes part, which the "
        "accountant does not cover; set it to 1 or privacy.mechanism to 'none'",
    )
    _require(
        not private or d.availability == "always" or d.deadline_seconds > 0,
        f"config devices.availability={d.availability!r} without a deadline lets the slowest client move the hour of later "
        "rounds, and so who takes part in them; set devices.deadline_seconds, or privacy.mechanism to 'none'",
    )


def _check_partition(p: PartitionConfig) -> None:
    _check_choice("data.partition.scheme", p.scheme, ("natural", "iid", "dirichlet", "quantity"))
    _require(p.num_clients > 1, f"config data.partition.num_clients={p.num_clients} must be at least 2")
    _require(p.alpha > 0, f"config data.partition.alpha={p.alpha} must be positive")
    _require(p.sites >= 0, f"config data.partition.sites={p.sites} must be 0 (none) or positive")
    for name in ("site_gain", "site_offset", "site_noise"):
        value = getattr(p, name)
        _require(value >= 0, f"config data.partition.{name}={value} must be 0 or more")
    _require(0 < p.site_keep <= 1, f"config data.partition.site_keep={p.site_keep} must be in (0, 1]")


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
    _require(
        not simulated or 1 < d.num_clients <= 2**30, f"config data.num_clients={d.num_clients} must be from 2 to 2^30"
    )
    _require(d.reference_clients > 0, f"config data.reference_clients={d.reference_clients} must be positive")
    for name in ("validation_fraction", "test_fraction", "audit_fraction"):
        value = getattr(d, name)
        _require(0 < value < 1, f"config data.{name}={value} must be between 0 and 1, both excluded")
    held_out = d.validation_fraction + d.test_fraction
    _require(
        simulated or held_out < 1,
        f"config data: validation and test fractions sum to {held_out}; leave clients to train",
    )
    _check_partition(d.partition)
    _check_choice("privacy.mechanism", p.mechanism, ("central_gaussian", "record_gaussian", "none"))
    private = p.mechanism != "none"
    _check_devices(c.devices, private)
    asynchronous = [m for m in c.models if getattr(c, m, None) and getattr(c, m).train.algorithm == "fedbuff"]
    _require(
        not asynchronous or (c.devices.deadline_seconds == 0 and c.devices.over_commitment == 1),
        f"config devices: {asynchronous} trained by fedbuff wait for nobody; set deadline_seconds=0 and over_commitment=1",
    )
    _require(
        p.mechanism != "record_gaussian" or d.population == "stored",
        "config privacy.mechanism='record_gaussian' needs data.population='stored', whose records can be counted",
    )
    _require(
        p.canaries == 0 or (p.canaries >= 4 and p.mechanism == "central_gaussian"),
        f"config privacy.canaries={p.canaries} must be 0 (none) or at least 4, and needs privacy.mechanism='central_gaussian'",
    )
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
        _check_choice(f"{name}.dense", model.dense, ("auto", "outer", "dot"))
        _require(
            all(h > 0 for h in model.hidden) and len(model.hidden) > 0,
            f"config {name}.hidden={model.hidden} must be positive sizes",
        )
        _require(model.latent > 0, f"config {name}.latent={model.latent} must be positive")
        _check_train(model.train, f"{name}.train", p.mechanism)
    for name in ("gan", "wgan_gp"):
        model = getattr(c, name)
        _check_choice(f"{name}.placement", model.placement, ("split", "joint"))
        _require(
            p.mechanism != "record_gaussian" or name not in c.models or model.placement == "split",
            f"config {name}.placement='joint' with privacy.mechanism='record_gaussian' would noise a generator that reads no "
            "record; set it to 'split'",
        )
        for field in ("penalty", "generator_steps", "generator_batch", "generator_learning_rate"):
            _require(getattr(model, field) > 0, f"config {name}.{field}={getattr(model, field)} must be positive")
    _require(c.vae.kl_weight > 0, f"config vae.kl_weight={c.vae.kl_weight} must be positive")
    _require(
        all(h > 0 for h in c.classifier.hidden),
        f"config classifier.hidden={c.classifier.hidden} must be positive sizes",
    )
    _check_choice("classifier.dense", c.classifier.dense, ("auto", "outer", "dot"))
    _check_train(c.classifier.train, "classifier.train", "none")
    _require(
        e.max_rows >= 100,
        f"config evaluation.max_rows={e.max_rows} must be at least 100 for the metrics to mean anything",
    )
    _require(e.synthetic_rows >= 0, f"config evaluation.synthetic_rows={e.synthetic_rows} must be 0 or more")
    rate = e.max_false_positive_rate
    _require(0 < rate < 1, f"config evaluation.max_false_positive_rate={rate} must be between 0 and 1, both excluded")
