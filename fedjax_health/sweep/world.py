"""The points of a piece before any is trained: a domain and federation for all, each point's plan, masks and questions."""

from __future__ import annotations

from typing import NamedTuple

from fedjax_health import prepare
from fedjax_health.config import Config
from fedjax_health.data.split import inclusion_masks
from fedjax_health.federated import sharding
from fedjax_health.prepared import Prepared
from fedjax_health.privacy.plan import PrivacyPlan


class Point(NamedTuple):
    """One run of a piece.

    Attributes:
      config: of the run.
      plan: its noise.
      prepared: every domain as the run's clients were asked; parts are those of all points, for a mesh of one device.
    """

    config: Config
    plan: PrivacyPlan
    prepared: tuple[Prepared, ...]

    def of(self, domain: str) -> Prepared:
        """A domain by its name."""
        return next(p for p in self.prepared if p.domain.name == domain)


def make_points(configs: list[Config]) -> list[Point]:
    """Loads the domains once, and asks the clients of every run what `launch.main` would ask them, with its noise.

    Args:
      configs: of the runs; the same in all that `pieces.static_part` holds.

    Raises:
      UserError: of the data, or a budget that cannot be met.
    """
    mesh = sharding.make_mesh(1)
    bare = [prepare.bare_domain(name, configs[0], mesh) for name in configs[0].data.domains]

    def point(config: Config) -> Point:
        own = [p._replace(include=_masks(p, config)) for p in bare]
        plan = prepare.plan_privacy(config, own)
        return Point(config, plan, tuple(prepare.ask(p, plan, config) for p in own))

    return [point(config) for config in configs]


def _masks(p: Prepared, config: Config):  # bool[N, K]
    return inclusion_masks(
        p.domain.population.size, config.data.audit_fraction, config.seeds, config.seed, p.domain.name
    )
