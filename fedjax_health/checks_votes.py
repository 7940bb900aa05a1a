"""Rules of a training whose clients train teachers that vote (see `federated.votes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedjax_health.checks_training import go_together, require

if TYPE_CHECKING:  # config imports this module
    from fedjax_health.federation_config import TrainConfig


def check_votes(c: TrainConfig, path: str, mechanism: str, teachers: int, over_commitment: float) -> None:
    """Rules of a training whose clients train teachers that vote.

    Args:
      c: the section.
      path: its name in the config.
      mechanism: privacy.mechanism.
      teachers: k.
      over_commitment: devices.over_commitment.

    Raises:
      UserError: the first rule broken.
    """
    who, otherwise = "teachers that vote (PATE-GAN)", "train another model"
    require(
        mechanism in ("central_gaussian", "none"),
        f"config privacy.mechanism={mechanism!r} does not go with {who}: the noise is on votes that the server counts; set it "
        f"to 'central_gaussian' or 'none', or {otherwise}",
    )
    require(
        c.cohort % teachers == 0,
        f"config {path}.cohort={c.cohort} must be a multiple of teachers={teachers}, so that each round asks as many clients "
        "of every teacher; change either",
    )
    require(
        over_commitment == 1,
        f"config devices.over_commitment={over_commitment} does not go with {who}: nobody is asked in a client's place; set it "
        f"to 1, or {otherwise}",
    )
    a, z = c.aggregation, c.compression
    plain = (
        (c.sampler == "fixed", f"sampler={c.sampler!r}", "'fixed': as many clients of every teacher"),
        (c.algorithm == "fedavg", f"algorithm={c.algorithm!r}", "'fedavg'"),
        (a.rule == "mean", f"aggregation.rule={a.rule!r}", "'mean': the votes are what is robust"),
        (a.weighting == "equal", f"aggregation.weighting={a.weighting!r}", "'equal'"),
        (a.attack == "none", f"aggregation.attack={a.attack!r}", "'none'"),
        (a.secure == "none", f"aggregation.secure={a.secure!r}", "'none': the server holds the teachers"),
        (c.hierarchy.institutions == 0, f"hierarchy.institutions={c.hierarchy.institutions}", "0"),
        (c.clip_quantile == 0, f"clip_quantile={c.clip_quantile}", "0"),
        (not z.rotate, f"compression.rotate={z.rotate}", "False"),
        (z.sparsify == "none", f"compression.sparsify={z.sparsify!r}", "'none'"),
        (not z.error_feedback, f"compression.error_feedback={z.error_feedback}", "False"),
        (z.bits == 0, f"compression.bits={z.bits}", "0"),
        (not z.sign, f"compression.sign={z.sign}", "False"),
        (z.down_bits == 0, f"compression.down_bits={z.down_bits}", "0"),
    )
    go_together(path, plain, who, otherwise)
