"""Attacks of a run by name: who wants to know who took part, and what can be learnt of a person from a table."""

from __future__ import annotations

from collections.abc import Callable

from fedjax_health.attacks.attribute_inference import make_attribute_inference
from fedjax_health.attacks.base import Attack
from fedjax_health.attacks.disclosure import Disclosure
from fedjax_health.attacks.distances import remembered
from fedjax_health.attacks.domias import make_domias
from fedjax_health.attacks.gan_leaks import make_gan_leaks
from fedjax_health.attacks.inference import make_inference
from fedjax_health.attacks.linkability import make_linkability
from fedjax_health.attacks.logan import make_logan
from fedjax_health.attacks.loss_threshold import make_loss_threshold
from fedjax_health.attacks.monte_carlo import make_monte_carlo
from fedjax_health.attacks.nearest_synthetic import make_nearest_synthetic
from fedjax_health.attacks.singling_out import make_singling_out

DISCLOSURES: dict[str, Callable[[], Disclosure]] = {
    "singling-out": make_singling_out,
    "linkability": make_linkability,
    "inference": make_inference,
    "attribute-inference": make_attribute_inference,
}


def make_attacks() -> dict[str, Attack]:
    """Membership attacks of a run, by name; those that ask for the same distances share them."""
    distance = remembered()
    attacks = (
        make_loss_threshold(),
        make_gan_leaks(distance),
        make_nearest_synthetic(distance),
        make_monte_carlo(),
        make_logan(),
        make_domias(),
    )
    return {attack.name: attack for attack in attacks}


def make_disclosures() -> dict[str, Disclosure]:
    """Attacks on disclosure of a run, by name."""
    return {name: make() for name, make in DISCLOSURES.items()}
