"""Rules of one training's section of a config; the first one broken is told with its key, its value and the remedy."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

from fedjax_health.types import UserError

if TYPE_CHECKING:  # config imports this module
    from fedjax_health.federation_config import TrainConfig

ALGORITHMS = ("fedavg", "fedprox", "scaffold", "fednova", "mime_lite", "fedbuff")
PLAIN_SGD = ("scaffold", "fednova", "mime_lite")
RULES = (
    "mean", "fixed_point", "norm_bound", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median",
)  # fmt: skip
ROBUST = ("norm_bound", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median")
ATTACKS = ("none", "label_flip", "backdoor", "sign_flip", "gaussian", "alie", "ipm")


def require(ok: bool, message: str) -> None:
    """Raises a UserError with the message unless ok."""
    if not ok:
        raise UserError(message)


def check_choice(path: str, value: str, allowed: tuple[str, ...]) -> None:
    """Requires one of the allowed values, and guesses which was meant."""
    near = difflib.get_close_matches(value, allowed, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    require(value in allowed, f"config {path}={value!r} is not one of {', '.join(allowed)}{hint}")


def positive(path: str, section: object, *names: str) -> None:
    """Requires numbers > 0 in the named fields of a section."""
    for name in names:
        value = getattr(section, name)
        require(value > 0, f"config {path}.{name}={value} must be positive")


def check_train(c: TrainConfig, path: str, mechanism: str) -> None:
    """Rules of one training.

    Args:
      c: the section.
      path: its name in the config, such as "vae.train".
      mechanism: privacy.mechanism; "none" for a model that only evaluates.

    Raises:
      UserError: the first rule broken.
    """
    positive(path, c, "rounds", "rounds_per_chunk", "cohort", "local_epochs", "local_steps", "batch_size")
    positive(path, c, "client_learning_rate", "server_learning_rate", "l2_clip_norm", "concurrency", "max_staleness")
    require(
        c.clients_per_chunk >= 0, f"config {path}.clients_per_chunk={c.clients_per_chunk} must be 0 (auto) or positive"
    )
    require(c.proximal_weight >= 0, f"config {path}.proximal_weight={c.proximal_weight} must be 0 or more")
    check_choice(f"{path}.local", c.local, ("epochs", "steps"))
    check_choice(f"{path}.algorithm", c.algorithm, ALGORITHMS)
    check_choice(f"{path}.sampler", c.sampler, ("poisson", "fixed", "full"))
    check_choice(f"{path}.server_optimizer", c.server_optimizer, ("sgd", "adam", "rmsprop", "yogi", "adagrad"))
    check_choice(f"{path}.server_schedule", c.server_schedule, ("constant", "cosine"))
    check_choice(f"{path}.client_optimizer", c.client_optimizer, ("sgd", "adam"))
    require(c.step_clip_norm >= 0, f"config {path}.step_clip_norm={c.step_clip_norm} must be 0 (none) or positive")
    require(
        c.rounds % c.rounds_per_chunk == 0,
        f"config {path}.rounds={c.rounds} must be a multiple of rounds_per_chunk={c.rounds_per_chunk}; change either",
    )
    require(
        0 <= c.clip_quantile < 1,
        f"config {path}.clip_quantile={c.clip_quantile} must be 0 (l2_clip_norm stays as it is) or in (0, 1)",
    )
    positive(path, c, "clip_learning_rate")
    require(0 <= c.ema_decay < 1, f"config {path}.ema_decay={c.ema_decay} must be in [0, 1)")
    require(c.convergence_window >= 0, f"config {path}.convergence_window={c.convergence_window} must be 0 or more")
    require(
        c.convergence_tolerance >= 0, f"config {path}.convergence_tolerance={c.convergence_tolerance} must be 0 or more"
    )
    require(
        c.algorithm not in PLAIN_SGD or (c.client_optimizer == "sgd" and not c.step_clip_norm),
        f"config {path}.algorithm={c.algorithm!r} is exact for plain SGD only; set client_optimizer='sgd' and "
        "step_clip_norm=0",
    )
    _check_aggregation(c, path)
    _check_compression(c, path)
    _check_hierarchy(c, path)
    if c.clip_quantile:
        _check_adaptive_clip(c, path, mechanism)
    require(
        c.server_schedule == "constant" or c.hierarchy.institutions == 0,
        f"config {path}.server_schedule={c.server_schedule!r} follows rounds, and a hierarchy's server steps at meetings; set "
        "it to 'constant' or hierarchy.institutions to 0",
    )
    if c.aggregation.secure != "none":
        check_secure(c, path, mechanism)
    if mechanism != "none":
        _check_private(c, path, mechanism)


def _check_aggregation(c: TrainConfig, path: str) -> None:
    a, path = c.aggregation, f"{path}.aggregation"
    check_choice(f"{path}.rule", a.rule, RULES)
    check_choice(f"{path}.weighting", a.weighting, ("equal", "examples"))
    check_choice(f"{path}.attack", a.attack, ATTACKS)
    require(
        0 <= a.assumed_attackers < 0.5, f"config {path}.assumed_attackers={a.assumed_attackers} must be in [0, 0.5)"
    )
    require(0 <= a.attackers < 1, f"config {path}.attackers={a.attackers} must be in [0, 1)")
    require(a.attack_scale > 0, f"config {path}.attack_scale={a.attack_scale} must be positive")
    require(
        a.weighting == "equal" or a.rule in ("mean", "norm_bound", "geometric_median"),
        f"config {path}.weighting='examples': the rule {a.rule!r} counts every client once; set it to 'equal'",
    )
    require(
        a.rule != "fixed_point" or (a.attack == "none" and math.isfinite(c.l2_clip_norm)),
        f"config {path}.rule='fixed_point' needs a finite l2_clip_norm and knows no attack",
    )
    require(
        c.algorithm != "fedbuff" or a.rule == "mean",
        f"config {path}.rule={a.rule!r}: fedbuff weights updates by staleness, which only 'mean' knows",
    )
    check_choice(f"{path}.secure", a.secure, ("none", "ideal", "masked"))
    require(2 <= a.secure_bits <= 24, f"config {path}.secure_bits={a.secure_bits} must be 2 to 24")
    require(
        a.secure_degree >= 0 and a.secure_degree % 2 == 0,
        f"config {path}.secure_degree={a.secure_degree} must be 0 (chosen by the cohort) or positive and even",
    )


def go_together(path: str, rules: tuple[tuple[bool, str, str], ...], with_what: str, otherwise: str) -> None:
    """Requires every (ok, what, remedy): settings that go with another one.

    Args:
      path: of the section.
      rules: (whether it holds, "key=value", what to set it to).
      with_what: the other one.
      otherwise: the other remedy.

    Raises:
      UserError: the first rule broken.
    """
    for ok, what, remedy in rules:
        require(ok, f"config {path}.{what} does not go with {with_what}; set {remedy}, or {otherwise}")


def check_secure(c: TrainConfig, path: str, mechanism: str) -> None:
    """Rules of a training with secure aggregation.

    Args: as `check_train`.

    Raises:
      UserError: the first rule broken.
    """
    a, z = c.aggregation, c.compression
    plain = (
        (a.rule == "mean", f"aggregation.rule={a.rule!r}", "'mean': the server learns a sum only"),
        (a.weighting == "equal", f"aggregation.weighting={a.weighting!r}", "'equal'"),
        (
            a.attack == "none",
            f"aggregation.attack={a.attack!r}",
            "'none': attacks are on what the server no longer sees",
        ),
        (math.isfinite(c.l2_clip_norm), f"l2_clip_norm={c.l2_clip_norm}", "a finite bound, which the grid is made for"),
        (c.algorithm not in ("fednova", "fedbuff"), f"algorithm={c.algorithm!r}", "one with plain sums of a round"),
        (c.hierarchy.institutions == 0, f"hierarchy.institutions={c.hierarchy.institutions}", "0"),
        (z.sparsify == "none", f"compression.sparsify={z.sparsify!r}", "'none': masks are dense"),
        (z.bits == 0, f"compression.bits={z.bits}", "0: secure_bits is the quantiser"),
        (not z.sign, f"compression.sign={z.sign}", "False: secure_bits is the quantiser"),
        (not z.error_feedback, f"compression.error_feedback={z.error_feedback}", "False: rounding is unbiased"),
    )
    go_together(path, plain, f"aggregation.secure={a.secure!r}", "secure to 'none'")
    require(
        mechanism in ("none", "central_gaussian", "distributed_gaussian"),
        f"config {path}.aggregation.secure={a.secure!r} is not accounted for with privacy.mechanism={mechanism!r}; set it to "
        "'none'",
    )


def _check_compression(c: TrainConfig, path: str) -> None:
    z, path = c.compression, f"{path}.compression"
    check_choice(f"{path}.sparsify", z.sparsify, ("none", "top_k", "rand_k"))
    require(0 < z.keep_fraction <= 1, f"config {path}.keep_fraction={z.keep_fraction} must be in (0, 1]")
    for name in ("bits", "down_bits"):
        value = getattr(z, name)
        require(0 <= value <= 16, f"config {path}.{name}={value} must be 0 (float32) or 1 to 16")
    require(not (z.sign and z.bits), f"config {path}.sign and bits={z.bits} exclude each other; set one of them to 0")
    require(
        not z.rotate or (c.algorithm != "fedbuff" and c.aggregation.rule not in ("median", "trimmed_mean")),
        f"config {path}.rotate: the rotation of a round is shared by all its updates, and mixes their coordinates; turn it "
        "off for fedbuff, median and trimmed_mean",
    )
    lossy = z.rotate or z.sparsify != "none" or z.bits or z.sign
    require(
        not lossy or c.algorithm != "fednova",
        f"config {path}: fednova sends a number of steps beside its update, which must not be compressed; turn it off",
    )


def _check_hierarchy(c: TrainConfig, path: str) -> None:
    h, path = c.hierarchy, f"{path}.hierarchy"
    require(h.institutions >= 0, f"config {path}.institutions={h.institutions} must be 0 (none) or positive")
    positive(path, h, "period")
    if h.institutions:
        plain = c.algorithm in ("fedavg", "fedprox") and c.aggregation.rule == "mean" and c.aggregation.attack == "none"
        require(
            plain, f"config {path}.institutions={h.institutions} needs fedavg or fedprox, rule='mean' and no attack"
        )
        require(c.compression.down_bits == 0, f"config {path}: institutions send models as they are; set down_bits=0")
    down = c.compression.down_bits
    require(
        c.algorithm != "fedbuff" or (not h.institutions and down == 0),
        f"config {path}: fedbuff has no institutions and sends models as they are; set institutions=0 and down_bits=0",
    )


def _check_adaptive_clip(c: TrainConfig, path: str, mechanism: str) -> None:
    z, rule = c.compression, c.aggregation.rule
    together = (
        (c.algorithm in ("fedavg", "fedprox"), f"algorithm={c.algorithm!r}", "'fedavg' or 'fedprox'"),
        (math.isfinite(c.l2_clip_norm), f"l2_clip_norm={c.l2_clip_norm}", "the finite bound to start from"),
        (c.hierarchy.institutions == 0, f"hierarchy.institutions={c.hierarchy.institutions}", "0"),
        (rule not in ROBUST, f"aggregation.rule={rule!r}", "'mean': others know no mean of the clients' bits"),
        # a clip behind what makes messages longer, or a bias, would move the bits and with them the quantile
        (z.sparsify == "none", f"compression.sparsify={z.sparsify!r}", "'none'"),
        (not z.sign, f"compression.sign={z.sign}", "False"),
        (not z.error_feedback, f"compression.error_feedback={z.error_feedback}", "False"),
        (z.bits == 0 or z.bits >= 8, f"compression.bits={z.bits}", "0 or at least 8"),
    )
    go_together(path, together, f"clip_quantile={c.clip_quantile}", "clip_quantile to 0")
    require(
        mechanism in ("central_gaussian", "none"),
        f"config {path}.clip_quantile={c.clip_quantile} needs whole updates with the noise of a round on their sum, which "
        f"privacy.mechanism={mechanism!r} does not give; set it to 0",
    )


def _check_private(c: TrainConfig, path: str, mechanism: str) -> None:
    a = c.aggregation
    of_records = (
        (
            c.algorithm == "fedavg",
            f"algorithm={c.algorithm!r}",
            "'fedavg': others touch a record more than once a step",
        ),
        (c.local == "epochs", f"local={c.local!r}", "'epochs': a batch may hold a record only once"),
    )
    same_work = (
        c.local == "steps",
        f"local={c.local!r}",
        "'steps': how long a client works, which the server sees, may not depend on its records",
    )
    secure = (
        c.aggregation.secure != "none",
        "aggregation.secure='none'",
        "'ideal' or 'masked': the noise hides in a sum only",
    )
    in_turns = (c.sampler == "poisson", f"sampler={c.sampler!r}", "'poisson': its clients take turns in groups")
    own = {
        "record_gaussian": of_records,
        "local_gaussian": (same_work,),
        "correlated_gaussian": (in_turns,),
        "distributed_gaussian": (secure, same_work),
    }
    covered = (
        *own.get(mechanism, ()),
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
        require(
            ok, f"config {path}.{what} is not covered by the accountant; set {remedy}, or privacy.mechanism to 'none'"
        )
