"""What the page calls things: headings of metrics, rows, attacks and features, and the range that a figure can take."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fedjax_health.evaluation import controls
from fedjax_health.evaluation.augmentation import CHOSEN, GAINED
from fedjax_health.types import Row


class Metric(NamedTuple):
    """Heading of a metric (the arrow points to the better side), and the range of the figure."""

    heading: str
    low: float = 0.0
    high: float = 1.0


METRICS = {  # in the order of the columns
    "real_mean": Metric("Real, mean ± SD", -math.inf, math.inf),
    "synthetic_mean": Metric("Synthetic, mean ± SD", -math.inf, math.inf),
    "welch_p": Metric("Welch p"),
    "tost_p": Metric("TOST p ↓"),
    "ks_complement": Metric("KS ↑"),
    "tv_complement": Metric("TV ↑"),
    "wasserstein_sd": Metric("W₁ (SD) ↓", 0.0, math.inf),
    "js_distance": Metric("JS ↓"),
    "tail_coverage": Metric("Tails kept ↑"),
    "correlation_error_mean": Metric("Correlation error, mean ↓", 0.0, 2.0),
    "correlation_error_max": Metric("Correlation error, max ↓", 0.0, 2.0),
    "correlation_similarity": Metric("Correlation similarity ↑"),
    "contingency_similarity": Metric("Contingency similarity ↑"),
    "missing_correlation_error_mean": Metric("Error of what is missing together, mean ↓", 0.0, 2.0),
    "missing_correlation_error_max": Metric("Error of what is missing together, max ↓", 0.0, 2.0),
    "coverage": Metric("Coverage ↑"),
    "density": Metric("Density (best 1)", 0.0, math.inf),
    "alpha_precision": Metric("α-precision ↑"),
    "beta_recall": Metric("β-recall ↑"),
    "sliced_wasserstein": Metric("Sliced W₁ ↓", 0.0, math.inf),
    "mmd": Metric("MMD² (best 0)", -math.inf, 2.0),
    "rule_violations": Metric("Impossible records ↓"),
    "authenticity": Metric("Authenticity (as the ceiling)"),
    "nnaa": Metric("Adversarial accuracy (as the ceiling)"),
    "privacy_loss": Metric("Adversarial accuracy, holdout − training (best 0)", -1.0),
    "nearer_to_training": Metric("Nearer to training (best 0.5)"),
    "c2st_auc": Metric("C2ST AUC (best 0.5)"),
    "sample_recall": Metric("Sample recall ↑"),
    "lost_classes": Metric("Lost classes ↓", 0.0, math.inf),
    "narrow_columns": Metric("Columns without spread ↓", 0.0, math.inf),
    "excess_duplicates": Metric("Repeated rows, synthetic − real (best 0)", -1.0),
    "copied_rows": Metric("Rows that copy a training row ↓"),
    "outside_rows": Metric("Rows outside the schema ↓"),
    "missing_rate_difference": Metric("Share missing, synthetic − real (best 0)", -1.0),
    "label_rate_difference": Metric("Share positive, synthetic − real (best 0)", -1.0),
    "detection_rate": Metric("Detection rate ↑"),
    "false_positive_rate": Metric("False positives ↓"),
    "detection_at_1pct_fpr": Metric("Detection at 1 % FPR ↑"),
    "alerts_per_day": Metric("Alerts a device and day", 0.0, math.inf),
    "false_alerts_per_day": Metric("False alerts a device and day ↓", 0.0, math.inf),
    "false_alerts_per_1000_benign": Metric("False alerts per 1,000 benign flows ↓", 0.0, 1000.0),
    "campaigns_seen": Metric("Campaigns seen ↑"),
    "seen_at_once": Metric("Campaigns seen in their first flow ↑"),
    "flows_to_alert_median": Metric("Attack flows until seen, median ↓", 1.0, math.inf),
    "flows_to_alert_p90": Metric("Attack flows until seen, 90th percentile ↓", 1.0, math.inf),
    "seconds_to_alert_median": Metric("Seconds until seen, median ↓", 0.0, math.inf),
    "seconds_to_alert_p90": Metric("Seconds until seen, 90th percentile ↓", 0.0, math.inf),
    "detection_at_0p1pct_fpr": Metric("Detection at 0.1 % FPR (10,000 benign records needed) ↑"),
    "fpr_at_95pct_detection": Metric("FPR at 95 % detection ↓"),
    "single_feature_auroc": Metric("AUROC of this column alone (guessing 0.5)"),
    "auc": Metric("AUC (guessing 0.5)"),
    "success (%)": Metric("Success, % (guessing 50)", 0.0, 100.0),
    "tpr_at_1pct_fpr": Metric("TPR at 1 % FPR (guessing 0.01)"),
    "tpr_at_0p1pct_fpr": Metric("TPR at 0.1 % FPR (guessing 0.001)"),
    "record_auc": Metric("AUC by record (guessing 0.5)"),
    "record_tpr_at_1pct_fpr": Metric("TPR at 1 % FPR by record"),
    "record_tpr_at_0p1pct_fpr": Metric("TPR at 0.1 % FPR by record"),
    "attack_rate": Metric("Right about members"),
    "baseline_rate": Metric("Blind guesses right"),
    "control_rate": Metric("Right about others", 0.0, math.inf),
    "risk": Metric("Risk over the control (best 0)", -1.0),
    "accuracy": Metric("Accuracy ↑"),
    "balanced_accuracy": Metric("Balanced accuracy ↑"),
    "precision": Metric("Precision ↑"),
    "recall": Metric("Recall ↑"),
    "f1": Metric("F1 ↑"),
    "auroc": Metric("AUROC ↑"),
    "pr_auc": Metric("PR-AUC ↑"),
    "brier": Metric("Brier ↓"),
    "ece": Metric("Calibration error ↓"),
    "calibration": Metric("Calibration", -math.inf, math.inf),
    "ranking": Metric("Choice of model", -1.0),
    "macro_f1": Metric("Macro-F1 ↑"),
    "added_rows": Metric("Rows added", 0.0, math.inf),
    "chosen": Metric("Share of seeds that chose it"),
    "epsilon_accounted": Metric("ε accounted, this training", 0.0, math.inf),
    "epsilon_estimate": Metric("ε estimated by the audit", 0.0, math.inf),
    "epsilon_lower_bound": Metric("ε proven at least, 95 %", 0.0, math.inf),
    "epsilon_one_shot": Metric("ε of the statistics alone", 0.0, math.inf),
    "share": Metric("Share of records"),
    "share_difference": Metric("Share, synthetic − real", -1.0),
    "clients": Metric("Clients", 0.0, math.inf),
    "records": Metric("Records", 0.0, math.inf),
    "too_small": Metric("Too small to judge"),
    "accuracy_gap": Metric("Largest gap in accuracy"),
    "auroc_gap": Metric("Largest gap in AUROC"),
    "equalised_odds_difference": Metric("Equalised-odds difference"),
    "accuracy_gap_change": Metric("Gap in accuracy, less the real model’s", -1.0),
    "auroc_gap_change": Metric("Gap in AUROC, less the real model’s", -1.0),
    "equalised_odds_difference_change": Metric("Equalised-odds difference, less the real model’s", -1.0),
    "membership_auc": Metric("Membership AUC (guessing 0.5)"),
    "membership_auc_gap": Metric("Largest gap in membership AUC"),
    "targets": Metric("Clients attacked", 0.0, math.inf),
}
METRICS |= {f"{m}_gain": Metric(f"{METRICS[m].heading.removesuffix(' ↑')}, gain ↑", -1.0) for m in GAINED}
METRICS["false_positive_rate_gain"] = Metric("False positives, change ↓", -1.0)
BOUNDS = {  # rows that are no result but say how good or bad a result can be
    "real-vs-real": "Real against real (ceiling)",
    "independent-marginals": "Independent marginals (floor)",
    "gaussian-copula": "Gaussian copula (floor)",
    "aim": "AIM, private, by a trusted curator (rival)",
    "dp-ceiling": "Most that the promise allows",
}
ROWS = {
    "real": "Real",
    "synthetic": "Synthetic",
    "real+synthetic": "Real + synthetic",
    CHOSEN: "Real + synthetic, amount chosen",
    controls.BALANCED: "Real + synthetic attacks up to balance",
    controls.WEIGHTED: "Real, class weights (control)",
    controls.OVERSAMPLED: "Real, attacks oversampled (control)",
    controls.SMOTED: "Real + SMOTE, pooled (control)",
    controls.COPULA: "Real + Gaussian copula, pooled (control)",
    controls.ANOMALY: "Anomaly detector, benign records only (control)",
    controls.JOINED: "Classifier and anomaly detector, joined by how rare benign records score so",
    controls.TREES: "Boosted trees, central, pooled (mark from outside)",
    **BOUNDS,
}
SETTINGS = {  # the first half of a membership row: what is attacked
    "model-on-real": "A classifier trained on real records",
    "model-on-synthetic": "A classifier trained on synthetic records",
    "model-on-real+synthetic": "A classifier trained on real and synthetic records",
    "synthetic-table": "The synthetic table alone",
    "federated+synthetic": "The federated generator and its synthetic records",
    "generator": "The trained generator itself",
    "published-models": "The models that every round publishes",
    "published-updates": "The mean updates that every round publishes",
    "published-updates-together": "The mean updates that every round publishes, all candidates weighed together",
}
ATTACKS = {
    "loss-threshold": "loss threshold",
    "gan-leaks": "nearest synthetic record, not calibrated",
    "nearest-synthetic": "nearest synthetic record",
    "monte-carlo": "synthetic records nearby (Monte Carlo)",
    "logan": "discriminator (LOGAN)",
    "domias": "DOMIAS density ratio",
    "white-box": "white box: the generator itself",
    "shadow-threshold": "threshold chosen on shadow federations",
    "lira": "LiRA, a client",
    "lira-offline": "LiRA, offline, a client",
    "lira-record": "LiRA, a record",
    "rmia": "RMIA, a client",
}
DISCLOSURES = {
    "singling-out:univariate": "singling out by one attribute",
    "singling-out:multivariate": "singling out by several attributes",
    "linkability": "linking two halves of the attributes",
    "inference": "nearest synthetic record, of",
    "attribute-inference": "trees trained on synthetic records, of",
}
EVENTS = {  # classes of events
    "GaussianDpEvent": "Gaussian noise",
    "PoissonSampledDpEvent": "Gaussian noise, Poisson-sampled clients",
    "RevealedSampledDpEvent": "Gaussian noise, sampled clients, known who takes part",
    "TruncatedSubsampledGaussianDpEvent": "Gaussian noise, Poisson-sampled clients, cohort capped",
}
CENTRAL = {
    "logistic-regression": "logistic regression",
    "boosted-trees": "boosted trees",
}  # fitted centrally, to pooled rows
MODELS = {
    "real": "Real", "-": "–", "vae": "VAE", "wgan_gp": "WGAN-GP", "gan": "GAN", "acgan": "AC-GAN", "medgan": "medGAN",
    "diffusion": "Diffusion", "copula": "One-shot copula", "pategan": "PATE-GAN", "paper": "the paper",
}  # fmt: skip


TITLES = {"disclosure": "Disclosure: singling out, linking and inferring"}  # of tables that only some runs have


def table_title(name: str) -> str:
    """Heading of a table by the name of its file, its own name where it is not known here."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def row_label(row: str) -> str:
    """Name of a row for readers, such as "Real of 20 % of the clients + synthetic" for "real@20%+synthetic"."""
    trained, colon, model = row.partition(":")
    if colon and model in CENTRAL:
        return f"{row_label(trained)}, {CENTRAL[model]}"
    cut = re.fullmatch(r"real@([\d.]+)%(\+synthetic)?", row)
    if cut is None:
        return ROWS.get(row, row)
    return f"Real of {cut[1]}\u00a0% of the clients{' + synthetic' if cut[2] else ''}"


def model_label(model: str) -> str:
    """Name of a model for readers, such as "WGAN-GP"."""
    return MODELS.get(model, model)


def heading(metric: str) -> str:
    """Heading of a column; arrows, and the second half of "PR-AUC", never stand on a line of their own.

    Args:
      metric: name in the table.
    """
    name = metric.split("[")[0]
    known = METRICS.get(name)
    text = known.heading if known else name.replace("_", " ")
    return text.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓").replace(" %", "\u00a0%").replace("-", "\u2011")


def short_heading(metric: str) -> str:
    """Heading without its arrow, its unit and what stands in brackets, for a sentence."""
    bare = re.sub(r" \(.*\)$", "", re.sub(r"\u00a0[↑↓]$", "", heading(metric)))
    return bare.removesuffix(", mean ± SD").removesuffix(",\u00a0%")


def within_range(row: Row) -> Row:
    """The row with its interval cut to the range that the metric can take, which costs the interval no coverage.

    Args:
      row: a figure; an interval may reach beyond the range where it is a Student-t interval of few seeds.
    """
    known = METRICS.get(row.metric.split("[")[0])
    if known is None or not (math.isfinite(row.low) and math.isfinite(row.high)):
        return row
    return row._replace(low=min(max(row.low, known.low), known.high), high=max(min(row.high, known.high), known.low))


def attack_parts(row: str) -> tuple[str, str]:
    """(what is attacked, which attack) of a membership row such as "model-on-real:loss-threshold", for readers.

    Args:
      row: "<setting>:<attack>"; without a colon the setting is "".
    """
    setting, colon, attack = row.partition(":")
    if not colon:
        return "", ATTACKS.get(row, row)
    return SETTINGS.get(setting, setting), ATTACKS.get(attack, attack)


def disclosure_label(row: str) -> str:
    """A row of disclosure.csv for readers: "singling-out:multivariate" -> "singling out by several attributes"."""
    attack, _, what = row.partition(":")
    return DISCLOSURES.get(row) or f"{DISCLOSURES.get(attack, attack)} {what}".strip()


def feature_label(name: str, columns: Mapping[str, Mapping[str, Any]]) -> str:
    """A feature with its unit, such as "heart_rate (bpm)".

    Args:
      name: column name.
      columns: name -> column of synthetic/schema.json.
    """
    unit = columns.get(name, {}).get("unit", "")
    return f"{name} ({unit})" if unit else name


def stage_label(stage: str) -> str:
    """A stage such as "vitals/vae" for readers: "VAE · vitals"."""
    domain, slash, model = stage.partition("/")
    return f"{model_label(model)} · {domain}" if slash else stage
