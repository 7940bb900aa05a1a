"""The sections of a config that say what a run is judged by: the classifier, and the sizes and rows of the evaluation."""

from __future__ import annotations

import dataclasses

from fedjax_health.checks_training import check_choice, check_train, require
from fedjax_health.federation_config import TrainConfig

# of a detection: how else its real records could be made to say more, and other detectors
CONTROLS = (
    "class-weights", "random-oversampling", "smote", "real+gaussian-copula", "real+balanced", "anomaly",
    "boosted-trees",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """Diagnostic or detection MLP, trained through the same federated stack (evaluation only, never published).

    Attributes:
      hidden, dense, train: as of a model.
      loss: "cross_entropy" or "focal" (records that are easy count less).
      focal_gamma: how much less, 0 or >= 1; 0 is cross-entropy.
      class_weights: "none" or "balanced": by the class shares that a run asks its clients for anyway, noisy under a guarantee.
      input_bound: what the network sees of a column is clipped to so many public spreads from its public centre (0 = not, else
        from 1 to 100), so that no value of a heavy tail, or of a record unlike any in training, decides alone.
      input_dropout: chance, in [0, 1), that a dimension of a record is 0 (the column's centre, no category) in a training step,
        so that no column decides alone; for attacks of another kind than those in training (docs/detection.md).
    """

    hidden: tuple[int, ...]
    dense: str
    train: TrainConfig
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0
    class_weights: str = "none"
    input_bound: float = 0.0
    input_dropout: float = 0.0


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Sizes of the evaluation.

    Attributes:
      max_rows: most rows a similarity metric or a density attack looks at.
      synthetic_rows: rows published a model (0 = as many as real training rows, at most 50,000).
      max_false_positive_rate: operating point of the detector, chosen on validation clients, in (0, 1).
      rivals: private alternatives that a trusted curator of the pooled records could publish at the run's epsilon and delta, as
        rows of the tables: "aim" (see `evaluation.aim`). Not published, and so not in the run's ledger.
      augmentation: "fixed" (row real+synthetic: as many synthetic rows as real ones) or "chosen" (row real+chosen as well: how
        many of each class, chosen on validation clients; four more classifiers a generator).
      real_fractions: shares of the training clients whose real records the classifier reads, with and without synthetic rows;
        in (0, 1], 1 among them; each share below 1 is another classifier, and one more a generator.
      controls: other detectors that a detection is compared with, of `CONTROLS` (see `evaluation.controls`).
      unknown_share: with "anomaly" among them, its part, in (0, 1), of a detector that joins it with the classifier: of
        the false alarms that are allowed, so much is spent on attacks unlike those in training (see `evaluation.joined`).
    """

    max_rows: int
    synthetic_rows: int
    max_false_positive_rate: float
    rivals: tuple[str, ...] = ()
    augmentation: str = "fixed"
    real_fractions: tuple[float, ...] = (1.0,)
    controls: tuple[str, ...] = ()
    unknown_share: float = 0.2


def check_classifier(c: ClassifierConfig, shadows: int) -> None:
    """The rules of the classifier's section.

    Args:
      c: the section.
      shadows: of the attacks.

    Raises:
      UserError: the first rule broken.
    """
    require(
        all(h > 0 for h in c.hidden),
        f"config classifier.hidden={c.hidden} must be positive sizes",
    )
    check_choice("classifier.dense", c.dense, ("auto", "outer", "dot"))
    check_choice("classifier.loss", c.loss, ("cross_entropy", "focal"))
    gamma = c.focal_gamma
    require(
        gamma == 0 or 1 <= gamma <= 10,
        f"config classifier.focal_gamma={gamma} must be 0 (cross-entropy) or from 1 to 10; 2 is usual",
    )
    check_choice("classifier.class_weights", c.class_weights, ("none", "balanced"))
    require(
        c.class_weights == "none" or not shadows,
        f"config classifier.class_weights={c.class_weights!r} follow each federation's class shares, which shadows do not ask "
        f"for; set it to 'none' or attacks.shadows={shadows} to 0",
    )
    require(0 <= c.input_dropout < 1, f"config classifier.input_dropout={c.input_dropout} must be in [0, 1)")
    bound = c.input_bound
    require(
        bound == 0 or 1 <= bound <= 100,
        f"config classifier.input_bound={bound} must be 0 (none) or from 1 to 100 spreads; codes are 0 and 1",
    )
    check_train(c.train, "classifier.train", "none")


def check_controls(controls: tuple[str, ...], unknown_share: float) -> None:
    """The rules of evaluation.controls and evaluation.unknown_share.

    Args:
      controls: names.
      unknown_share: of the joined detector.

    Raises:
      UserError: a control that is not known, or twice the same; a share outside (0, 1).
    """
    require(0 < unknown_share < 1, f"config evaluation.unknown_share={unknown_share} must be in (0, 1); 0.5 is even")
    for control in controls:
        check_choice("evaluation.controls", control, CONTROLS)
    require(len(set(controls)) == len(controls), f"config evaluation.controls={controls} names a control twice")
