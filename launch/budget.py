"""What a run would cost, without data: python -m launch.budget --clients=2000 --cohort=100 --rounds=500 --epsilon=8."""

from __future__ import annotations

import json
import sys
from typing import Any

from absl import flags

from launch.command import run_command

_NEEDED = ("clients", "cohort", "rounds")


def _flags() -> flags.FlagValues:
    """Options of their own, apart from absl's global ones, so that each call starts afresh."""
    own = flags.FlagValues()
    whole, real = flags.DEFINE_integer, flags.DEFINE_float
    whole("clients", None, "K, clients of the smallest domain.", flag_values=own)
    whole("cohort", None, "Clients expected in a round, Poisson-sampled.", flag_values=own)
    whole("rounds", None, "Rounds of all trainings of the run together.", flag_values=own)
    real("epsilon", None, "Target; the noise is calibrated for it.", flag_values=own)
    real("noise_multiplier", None, "Noise of every round; its epsilon is computed.", flag_values=own)
    real("delta", 0.0, "0 = K^-1.1, else below 1/K.", flag_values=own)
    real("prior_noise_multiplier", 20.0, "Noise of the class-share histograms.", flag_values=own)
    whole("domains", 1, "How many such histograms are published.", flag_values=own)
    real("trials", None, "Mean trials of a sweep (geometric) whose best is published.", flag_values=own)
    flags.DEFINE_string("representation", "public", "Or scores, copula: its queries are in the plan.", flag_values=own)
    real("representation_share", 0.45, "Share of the budget for them.", flag_values=own)
    flags.DEFINE_bool("copula", False, "The one-shot copula is published, too.", flag_values=own)
    flags.DEFINE_string("mechanism", "central_gaussian", "Or local_gaussian, distributed_gaussian.", flag_values=own)
    flags.DEFINE_string("spent", None, "privacy_ledger.json of an earlier run on the same clients.", flag_values=own)
    flags.DEFINE_bool("json", False, "One JSON object instead of lines.", flag_values=own)
    flags.DEFINE_bool("help", False, "Shows this.", flag_values=own)
    return own


def _text(found: dict[str, Any]) -> str:
    """Every figure with its name in front, a line each; epsilons to five digits."""

    def show(value: Any) -> str:
        return "nothing proven" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)

    lines = []
    for name, value in found.items():
        if name == "epsilon_after":
            lines += [(f"epsilon after {rounds} rounds", show(epsilon)) for rounds, epsilon in value.items()]
        elif name == "groups":
            lines += [(f"epsilon of {g['size']} clients at that delta", show(g["epsilon"])) for g in value]
        elif name != "target_epsilon" or value is not None:
            lines.append((name.replace("_", " "), show(value)))
    return "\n".join(f"{name:36}{value}" for name, value in lines)


def _budget(given: dict[str, Any]) -> str:
    from fedjax_health.privacy import budget

    spent = budget.read_spent(given["spent"]) if given["spent"] is not None else None
    found = budget.budget(budget.Request(**{name: given[name] for name in budget.Request._fields}), spent)
    return json.dumps(found, allow_nan=False) if given["json"] else _text(found)


def main(argv: list[str]) -> int:
    """The command; what the user can mend is one sentence on stderr and exit code 2.

    Args:
      argv: with the program's name in front.
    """
    also = f"at least --{', --'.join(_NEEDED)} and --epsilon"
    return run_command(argv, _flags(), __doc__, _NEEDED, _budget, also)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
