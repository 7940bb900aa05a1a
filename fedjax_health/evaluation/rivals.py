"""Rivals of a run's generators: what a trusted curator could publish of the pooled records, at the same epsilon and delta."""

from __future__ import annotations

from fedjax_health import rng
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation.aim import aim
from fedjax_health.evaluation.suite import Setting, included
from fedjax_health.types import Table

MAKERS = {"aim": aim}  # of `checks.RIVALS`


def rival_tables(setting: Setting, budget: tuple[float, float] | None) -> dict[str, list[Table]]:
    """Tables of the config's rivals, one a seed, as many rows as the real one: a curator's, of the seed's training clients.

    Args:
      setting: the domain; its config names the rivals.
      budget: (epsilon, delta) of the run, which each of them gets whole; None only where there are none.
    """
    train, made = setting.domain.train, {}
    for name in setting.config.rivals:
        assert budget is not None
        made[name] = [
            MAKERS[name](
                take_clients(train, included(setting, s, True)), setting.domain.schema, len(train.label),
                setting.generator(rng.Stream.EVALUATE, "rival", name, str(s)), *budget,
            )
            for s in range(setting.include.shape[0])
        ]  # fmt: skip
    return made
