"""Wasserstein GAN with gradient penalty for windows of a sensor stream, with a temporal generator and critic."""

from __future__ import annotations

import math

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout, public_scaling
from fedjax_health.data.schema import Column
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.models.adversarial import make_adversarial
from fedjax_health.models.base import GenerativeModel
from fedjax_health.models.causal_windows import CausalWindows
from fedjax_health.models.maker import make_direct
from fedjax_health.models.temporal import WindowCritic, coarse_steps
from fedjax_health.models.wgan_gp import GAME


def make_stream_wgan_gp(schema: StreamSchema, num_classes: int, config: GanConfig) -> GenerativeModel:
    """Critic: v_fake - v_real + penalty; generator: -v_fake; how it makes windows, see `CausalWindows`.

    Args:
      schema: of the windows; numeric channels only.
      num_classes: L.
      config: sizes and placement; `hidden` are the convolutions' widths, the finest first.

    Raises:
      UserError: the window cannot be halved once a layer.

    Source: Gulrajani et al. 2017, arXiv 1704.00028.
    """
    steps, channels = schema.steps, len(schema.channels)
    coarse_steps(steps, config.hidden)
    size = steps * channels
    layout = Layout(size, 0, (), (-1,) * size)
    low, high = zip(*map(_ends, schema.channels), strict=True)
    generator = CausalWindows(steps, config.hidden, low, high, config.dense)
    critic = WindowCritic(steps, channels, config.hidden, config.dense)
    maker = make_direct(layout, num_classes, config, generator, 2 * size)
    return make_adversarial(layout, num_classes, config, GAME, maker, critic)


def _ends(channel: Column) -> tuple[float, float]:
    """Ends of a channel's public range in model space."""
    assert channel.low is not None and channel.high is not None
    center, scale = public_scaling(channel)
    low, high = (math.log1p(v) if channel.transform == "log1p" else v for v in (channel.low, channel.high))
    return (low - center) / scale, (high - center) / scale
