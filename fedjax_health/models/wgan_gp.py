"""Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028), conditional on the label."""

from __future__ import annotations

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.adversarial import Game, make_adversarial
from fedjax_health.models.base import GenerativeModel

GAME = Game(
    outputs=1,
    sees_label=True,
    critic=lambda real, fake, label: fake[:, 0] - real[:, 0],
    generator=lambda fake, label: -fake[:, 0],
    evidence=lambda out, label: out[:, 0],
    penalised=True,
    centred=False,
)


def make_wgan_gp(layout: Layout, num_classes: int, config: GanConfig) -> GenerativeModel:
    """Critic: v_fake - v_real + penalty; generator: -v_fake.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes and placement.
    """
    return make_adversarial(layout, num_classes, config, GAME)
