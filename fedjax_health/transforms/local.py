"""Local differential privacy: what leaves a client is private already, whoever receives it and whatever is done with it."""

from __future__ import annotations

import math

from fedjax_health.federation_config import TrainConfig
from fedjax_health.transforms.base import UpdateTransform, chain
from fedjax_health.transforms.clip import make_clip
from fedjax_health.transforms.noise import make_local_noise
from fedjax_health.types import Array, Hyper, UserError


def make_local_privacy(compression: UpdateTransform, train: TrainConfig) -> UpdateTransform:
    """clip -> local noise -> compression, all on the client: what it sends is a function of the noised update alone.

    The clip comes first, and makes zero of an update that is not finite, so that the noise always covers what it is added
    to. Compression, and what error feedback keeps for the next round, are post-processing of noised values; a clip behind
    them, as central noise needs it, would bound nothing that counts here.

    The sum may be divided by the number of messages that came: the server sees them one by one, and emptying a client's
    data changes neither that it sends one nor how long it works.

    Args:
      compression: of the config, or the empty chain.
      train: how the clients train.

    Raises:
      UserError: no finite bound, an aggregation that cuts noised messages, or local work that depends on the data.
    """
    rule, bound = train.aggregation.rule, train.l2_clip_norm
    if not math.isfinite(bound):
        raise UserError(f"local noise is scaled to the clip norm, and l2_clip_norm={bound} is none; set a finite one")
    if rule == "fixed_point":
        raise UserError(
            "aggregation.rule='fixed_point' cuts a noised message to the bound it had without noise; set it to 'mean'"
        )
    if train.local != "steps":
        raise UserError(
            f"local={train.local!r} lets the number of records decide how long a client works, and so when its message comes, "
            "which local noise does not hide; set it to 'steps'"
        )
    clip = make_clip()

    def proven(hyper: Hyper) -> Array:
        stated = clip.l2_bound(None, hyper)
        assert stated is not None
        return stated

    return chain(clip, make_local_noise(proven), compression)
