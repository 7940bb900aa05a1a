"""Wasserstein GAN with gradient penalty for windows of a sensor stream, with a temporal generator and critic."""

from __future__ import annotations

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.models.adversarial import make_adversarial
from fedjax_health.models.base import GenerativeModel
from fedjax_health.models.maker import make_direct
from fedjax_health.models.temporal import WindowDecoder, WindowEncoder, coarse_steps
from fedjax_health.models.wgan_gp import GAME


def make_stream_wgan_gp(schema: StreamSchema, num_classes: int, config: GanConfig) -> GenerativeModel:
    """Critic: v_fake - v_real + penalty; generator: -v_fake. Whatever is random within a window comes from the latent.

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
    decoder = WindowDecoder(steps, channels, config.hidden, config.dense, summed=True)
    critic = WindowEncoder(steps, channels, config.hidden, 1, config.dense)
    maker = make_direct(layout, num_classes, config, decoder)
    return make_adversarial(layout, num_classes, config, GAME, maker, critic)
