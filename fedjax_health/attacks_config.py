"""The section of a config that says which attacks need trainings of their own, and its rules."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fedjax_health.attacks.shadows import FEWEST
from fedjax_health.checks_training import require

if TYPE_CHECKING:  # config imports this module
    from fedjax_health.config import Config


@dataclasses.dataclass(frozen=True)
class AttacksConfig:
    """Shadow federations: the whole pipeline again, with half of the targets, drawn by coins. Evaluation by the operator.

    Attributes:
      shadows: S, shadow federations of each domain and generator, each the target of the others in turn; 0 = none. With 8 the
        figures are rough; 64 resolve a false-positive rate of 0.1 %.
      shadow_targets: clients that are in each shadow by a fair coin; all others always are. 0 = all clients are targets.
      update_rounds: also attacks what each round publishes, looking at every so-manieth round, each time at the cost of
        training all targets; 0 = does not.
      generators: how many of the run's are attacked, in the order of data.domains and, of each, of models; 0 = all.
    """

    shadows: int = 0
    shadow_targets: int = 1_000
    update_rounds: int = 0
    generators: int = 0


def check_attacks(c: Config) -> None:
    """The rules of the section.

    Args:
      c: the run.

    Raises:
      UserError: the first rule broken.
    """
    from fedjax_health.checks import STREAMS  # which imports this module

    a = c.attacks
    streams = sorted(set(c.data.domains) & set(STREAMS))
    require(
        a.shadows == 0 or not streams,
        f"config attacks.shadows={a.shadows} trains on records, and data.domains={streams} hold windows; set it to 0",
    )
    require(
        a.shadows == 0 or a.shadows >= FEWEST,
        f"config attacks.shadows={a.shadows} must be 0 (none) or at least {FEWEST}: each is attacked by means of the others",
    )
    for name in ("shadow_targets", "update_rounds", "generators"):
        value = getattr(a, name)
        require(value >= 0, f"config attacks.{name}={value} must be 0 or more")
    require(
        a.update_rounds == 0 or a.shadows > 0,
        f"config attacks.update_rounds={a.update_rounds} compares shadow federations, and attacks.shadows=0: set both, or none",
    )
    odd = [
        m
        for m in c.models
        if m == "pategan"
        or (
            (t := getattr(getattr(c, m, None), "train", None))
            and (t.algorithm == "fedbuff" or t.hierarchy.institutions)
        )
    ]
    require(
        a.update_rounds == 0 or not odd,
        f"config attacks.update_rounds={a.update_rounds} watches flat rounds, and models={odd} have others; set it to 0",
    )
