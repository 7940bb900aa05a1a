"""What is published without a training, and whether it fits the budget by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fedjax_health.privacy import accounting
from fedjax_health.types import UserError

if TYPE_CHECKING:  # plan imports this module
    from fedjax_health.privacy.plan import PrivacyPlan

CATEGORIES = "category shares"  # the query of a one-shot generator alone


class OneShotRelease(NamedTuple):
    """A generator that is published without a training: class shares, a representation, and its own query.

    Attributes:
      stage: such as "vitals/copula".
      domain: whose clients.
      categories: whether they are asked for category shares; a table of numeric columns alone has none.
    """

    stage: str
    domain: str
    categories: bool


def check_statistics(plan: PrivacyPlan, before: accounting.Composition) -> None:
    """Refuses a run without training whose statistics and class shares alone pass the budget.

    Args:
      plan: of the run.
      before: what other runs published about the same clients.

    Raises:
      UserError: they cost more than privacy.epsilon.
    """
    found, c = accounting.epsilon_of([*before, *plan.spent({})], plan.delta), plan.config
    if found > c.epsilon:
        raise UserError(
            f"privacy.representation_share={c.representation_share:g}: the statistics and the class shares cost epsilon "
            f"{found:.4g}, more than privacy.epsilon={c.epsilon:g}; lower the share or raise privacy.prior_noise_multiplier"
        )
