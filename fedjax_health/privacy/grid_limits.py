"""Whether distributed noise fits its integer grid, and is drawn exactly enough for delta."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedjax_health.transforms.discrete_gaussian import TOTAL_VARIATION
from fedjax_health.transforms.distributed import LEAST_NOISE
from fedjax_health.types import UserError

if TYPE_CHECKING:  # plan imports this module
    from fedjax_health.privacy.plan import PrivacyPlan

MOST_INEXACT = 1e-3  # share of delta that noise may take which is drawn from a table


def check_grids(plan: PrivacyPlan) -> None:
    """Refuses distributed noise that its integer grid does not hold, or whose draws are not exact enough for delta.

    Args:
      plan: of a run, calibrated.

    Raises:
      UserError: the noise lies outside the grid's range, or all rounds' inexactness is no small part of delta.
    """
    inexact = 0.0
    for release in plan.releases:
        if (grid := release.grid) is None:
            continue
        if not LEAST_NOISE <= plan.noise_multiplier <= grid.most_noise:
            raise UserError(
                f"{release.stage}: a noise multiplier of {plan.noise_multiplier:.4g} is outside [{LEAST_NOISE}, "
                f"{grid.most_noise:.4g}], which the integer grid of {grid.least} clients' noise on {grid.size} coordinates "
                "holds; raise privacy.epsilon, cohort or privacy.least_share, or use a smaller model"
            )
        inexact += release.rounds * grid.slots * grid.size * TOTAL_VARIATION
    if inexact * (1.0 + math.exp(min(plan.config.epsilon, 700.0))) > MOST_INEXACT * plan.delta:
        raise UserError(
            f"the draws of distributed noise are exact to a total variation of {inexact:.1e} in all rounds, too little for "
            f"privacy.epsilon={plan.config.epsilon:g} at delta={plan.delta:.3g}; lower epsilon or the rounds"
        )
