"""GAN with the non-saturating loss (Goodfellow et al. 2014, arXiv 1406.2661), conditional on the label."""

from __future__ import annotations

from fedjax_health.config import GanConfig
from fedjax_health.data.encode import Layout
from fedjax_health.models.adversarial import NON_SATURATING, make_adversarial
from fedjax_health.models.base import GenerativeModel


def make_gan(layout: Layout, num_classes: int, config: GanConfig) -> GenerativeModel:
    """Discriminator: -log s(v_real) - log(1 - s(v_fake)); generator: -log s(v_fake); s the logistic function.

    Args:
      layout: meaning of the D axis.
      num_classes: L.
      config: sizes and placement.
    """
    return make_adversarial(layout, num_classes, config, NON_SATURATING)
