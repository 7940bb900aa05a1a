"""Adaptive clipping: the clip norm follows a quantile of the clients' own update norms, found under the same noise.

Andrew et al. 2021, "Differentially private learning with adaptive clipping", arXiv 1905.03871.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import tree
from fedjax_health.federated.algorithms import Algorithm, Local, Start
from fedjax_health.federation_config import TrainConfig
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update, UserError

BIT_SCALE = 0.25  # kappa: the update has 0.78 % more noise than alone, the mean bit 4.03 z / cohort
RANGE = 1e3  # the clip norm stays within this factor of where it started
SHARE_BELOW = "and the share of updates below the clip norm"  # what its noisy sums release beside the update
ROOM = 1.0 + 2.0**-19  # what float32 rounds then stays below the bound, and the clip behind touches nothing


class Control(NamedTuple):
    """The server's state.

    Attributes:
      log_ratio: f32[], log(C / C_0): the start is in the hyper-parameters, which an algorithm's first state cannot see.
      inner: of the wrapped algorithm.
    """

    log_ratio: Array
    inner: Any


class Clipped(NamedTuple):
    """What a client sends: its clipped update over params.client, and f32[] whether it was short enough; see below."""

    update: Update
    below: Array


def make_adaptive_clip(inner: Algorithm, quantile: float, rate: float, bit_scale: float = BIT_SCALE) -> Algorithm:
    """The same algorithm with a clip norm C that leaves a given share of the updates as they are.

        client: b = [|u| <= C],   message = S / s * (u min(1 / C, 1 / |u|), kappa (b - 1/2)),   s = sqrt(1 + kappa^2 / 4)
        server: direction = C s / S * mean update,   beta = s / (S kappa) * mean bit + 1/2
                C <- clip(C exp(-rate (beta - quantile)), C_0 / 1000, 1000 C_0)

    S = hyper["l2_clip_norm"] is the unit of the message, and C_0. Whatever C and u are, both parts together are at most
    sqrt(1 + kappa^2 / 4) S / s = S long. So the clip at S that follows, unchanged, stays the proven bound of the sum, and one
    Gaussian of multiplier z covers both queries. In units of C the update's noise is z_Delta = z s, in units of a bit the
    other's is sigma_b = z s / kappa = z sqrt(1 / kappa^2 + 1/4). That is the paper's split of z:

        z^-2 - (2 sigma_b)^-2 = z^-2 (s^2 - kappa^2 / 4) / s^2 = (z s)^-2 = z_Delta^-2.

    An update that is not finite is sent as zero, with b = 0. The mean divides by the public expected cohort: where fewer
    came, beta lies nearer 1/2 than their share, by that ratio; where more came, farther. Who has no records counts as not come.

    Args:
      inner: whose message is the update itself.
      quantile: share of the updates to leave unclipped, in (0, 1); the paper takes 1/2.
      rate: step of log C in a round (> 0); the paper takes 0.2.
      bit_scale: kappa > 0, weight of the bit beside the update.

    Raises:
      UserError: a number out of range, or an algorithm that sends more than its update.

    Source: Andrew et al. 2021, arXiv 1905.03871, algorithm 1 (geometric update) and theorem 1 (split of the noise).
    """
    if not 0 < quantile < 1:
        raise UserError(
            f"clip_quantile={quantile} must be in (0, 1), the share of updates to leave unclipped; take 0.5"
        )
    for name, value in (("clip_learning_rate", rate), ("bit_scale", bit_scale)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name}={value} of adaptive clipping must be positive and finite; leave it at its default")
    if not inner.additive:
        raise UserError(
            f"clip_quantile={quantile} bounds one update, and this algorithm sends more; use fedavg or fedprox, or 0"
        )
    scale, limit = math.sqrt(1.0 + bit_scale**2 / 4.0) * ROOM, math.log(RANGE)

    def clip_norm(control: Control, hyper: Hyper) -> Array:
        return hyper["l2_clip_norm"] * jnp.exp(control.log_ratio)

    def plain(start: Start) -> Start:
        return start._replace(control=start.control.inner)

    def begin(params: Params) -> Control:
        return Control(jnp.float32(0.0), inner.control(params))

    def init(start: Start) -> Local:
        return inner.init(plain(start))

    def step(start: Start, local: Local, batch: Batch, hyper: Hyper, key: Array) -> tuple[Local, Metrics]:
        return inner.step(plain(start), local, batch, hyper, key)

    def final(start: Start, local: Local, steps: Array, hyper: Hyper) -> tuple[Clipped, Any]:
        update, slot = inner.final(plain(start), local, steps, hyper)
        norm, clip, unit = tree.global_norm(update), clip_norm(start.control, hyper), hyper["l2_clip_norm"]
        finite = jnp.isfinite(norm)  # also False for finite numbers whose squares overflow
        factor = unit / (scale * jnp.maximum(norm, clip))
        bit = jnp.where(norm <= clip, jnp.float32(0.5), jnp.float32(-0.5))  # NaN compares as False
        sent = jax.tree.map(lambda leaf: jnp.where(finite, factor * leaf, 0.0), update)
        return Clipped(sent, unit * (bit_scale / scale) * bit), slot

    def server(message: Clipped, control: Control, hyper: Hyper) -> tuple[Update, Control]:
        update = tree.scale(scale * jnp.exp(control.log_ratio), message.update)
        direction, own = inner.server(update, control.inner, hyper)
        beta = message.below * (scale / bit_scale) / hyper["l2_clip_norm"] + 0.5
        log_ratio = jnp.clip(control.log_ratio - rate * (beta - quantile), -limit, limit)
        return direction, Control(log_ratio, own)

    def public(control: Control, hyper: Hyper) -> Metrics:
        return {**inner.public(control.inner, hyper), "public/clip_norm": clip_norm(control, hyper)}

    return Algorithm(begin, inner.slot, init, step, final, server, False, public)


def with_clip_norm(algorithm: Algorithm, train: TrainConfig, mechanism: str) -> Algorithm:
    """The algorithm as it is, or with the adaptive clip norm that the config asks for.

    Args:
      algorithm: what is trained by.
      train: `clip_quantile` (0 = as it is), `clip_learning_rate`, and the parts that would not go with them.
      mechanism: of privacy.

    Raises:
      UserError: a federation in which no one clip norm bounds a client's whole update of a round, and no mean of bits is known.
    """
    if not train.clip_quantile:
        return algorithm
    flat = train.algorithm != "fedbuff" and not train.hierarchy.institutions
    if not (flat and mechanism in ("central_gaussian", "none") and math.isfinite(train.l2_clip_norm)):
        raise UserError(
            f"clip_quantile={train.clip_quantile} adapts a finite bound on a client's whole update, in flat rounds; set it to "
            f"0 with mechanism={mechanism!r}, algorithm={train.algorithm!r}, institutions={train.hierarchy.institutions} and "
            f"l2_clip_norm={train.l2_clip_norm}"
        )
    return make_adaptive_clip(algorithm, train.clip_quantile, train.clip_learning_rate)
