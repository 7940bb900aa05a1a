"""How many synthetic rows of each class to add to real ones: candidates, the choice on validation clients, what it gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedjax_health import rng
from fedjax_health.evaluation.downstream import Downstream, Fitted
from fedjax_health.evaluation.mixtures import dealt_mixture, fraction_mixture
from fedjax_health.evaluation.rows import Figures
from fedjax_health.evaluation.setting import Setting, Subject
from fedjax_health.evaluation.utility import positive_score, ranking_figures
from fedjax_health.types import Table

CHOSEN = "real+chosen"
NOTHING = "none"
BALANCE = "balance"
SHARES = (0.25, 0.5, 1.0)  # of the real rows of each class
CANDIDATES = (NOTHING, BALANCE, *(f"{100 * share:g}%" for share in SHARES))
GAINED = (
    "accuracy", "balanced_accuracy", "recall", "auroc", "pr_auc", "detection_rate", "false_positive_rate",
    "detection_at_1pct_fpr",
)  # fmt: skip


def fraction_row(fraction: float) -> str:
    """Row of real data cut to a share of the clients, such as "real@20%"; "real" for all.

    Args:
      fraction: in (0, 1].
    """
    return "real" if fraction == 1 else f"real@{100 * fraction:g}%"


def raised(real: np.ndarray) -> np.ndarray:
    """Rows that bring smaller classes up to one level: the largest class, or as high as so many rows as there are real ones go.

    added_c = max(0, level - n_c) for classes with n_c > 0; with two classes the smaller one then equals the larger.

    Args:
      real: i64[L], real rows of each class.

    Returns:
      i64[L], in all at most the sum of `real`; 0 for classes without real rows.
    """
    there = real > 0
    low, high = 0, int(real.max(initial=0))
    while low < high:
        level = (low + high + 1) // 2
        fits = int(np.maximum(level - real, 0)[there].sum()) <= int(real.sum())
        low, high = (level, high) if fits else (low, level - 1)
    return np.where(there, np.maximum(low - real, 0), 0)


def amounts(real: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of each class that each of `CANDIDATES` adds.

    Args:
      real: i64[L], real rows of each class.

    Returns:
      Name -> i64[L]: nothing, the smaller classes up to balance (`raised`), and 25, 50 and 100 % of each class's own rows.
    """
    shares = {f"{100 * share:g}%": np.round(share * real).astype(np.int64) for share in SHARES}
    return {NOTHING: np.zeros_like(real), BALANCE: raised(real), **shares}


def choose(scores: Mapping[str, float], added: Mapping[str, int]) -> str:
    """The candidate with the best validation score; of equal ones that with fewest rows.

    Args:
      scores: name -> score, higher is better; NaN where it is undefined, and then it is not chosen.
      added: name -> rows in all.

    Returns:
      A name; `NOTHING` where no score is defined.
    """
    known = [name for name in scores if not np.isnan(scores[name])]
    # rounded, because equal rankings may differ in the last bit
    return max(known, key=lambda name: (round(scores[name], 12), -added[name]), default=NOTHING)


def validation_score(task: str, label: np.ndarray, score: np.ndarray) -> float:
    """What candidates are compared by: PR-AUC for a detection, where attacks are rare, else AUROC.

    Args:
      task: "detection" or "diagnosis".
      label: i32[M], validation labels.
      score: f64[M, L], class probabilities.

    Returns:
      NaN where a class is absent or a score is not finite.
    """
    auroc, pr_auc = ranking_figures(label != 0, positive_score(score))
    return pr_auc if task == "detection" else auroc


def enough_rows(subject: Subject, seed: int, wanted: np.ndarray) -> Table:
    """A seed's synthetic table, and below it fresh rows of the classes of which it has fewer than are wanted.

    Args:
      subject: the generator; without `draw` its table is given as it is, and its rows are then used again.
      seed: index on the N axis.
      wanted: i64[L], most rows of each class that any candidate adds.
    """
    table = subject.tables[seed]
    short = np.maximum(wanted - np.bincount(table.label, minlength=len(wanted)), 0)
    if subject.draw is None or not short.sum():
        return table
    more = subject.draw(seed, (short / short.sum()).astype(np.float32), int(short.sum()))
    values, label = np.concatenate([table.values, more.values]), np.concatenate([table.label, more.label])
    return Table(values, label, np.arange(len(label), dtype=np.int32))


def fit_chosen(
    setting: Setting, subject: Subject, alone: Fitted, downstream: Downstream, stage: str
) -> tuple[Fitted, list[Figures]]:
    """Trains one classifier a candidate and seed, and keeps of each seed the one that is best on validation clients.

    Test clients are not looked at. Adding nothing is a candidate (the classifier on real records, which is not trained again),
    so what a choice can cost is the noise of the validation score. That score is read without noise: it is evaluation, and the
    classifier is not published.

    Args:
      setting: the domain.
      subject: the generator.
      alone: trained on real records only.
      downstream: federated training of the classifier.
      stage: name for messages.

    Returns:
      (the chosen classifiers, for each seed `added_rows[class]` and `chosen[candidate]`, 1 for the one that was chosen).
    """
    domain, include, seeds = setting.domain, setting.include, range(setting.include.shape[0])
    classes = domain.schema.label.categories

    def count(label: np.ndarray) -> np.ndarray:
        return np.bincount(label, minlength=len(classes)).astype(np.int64)

    wanted = [amounts(count(domain.train.label[include[s][domain.train.client]])) for s in seeds]
    pools = [enough_rows(subject, s, np.max(list(wanted[s].values()), axis=0)) for s in seeds]
    fitted = {NOTHING: alone}
    added = {NOTHING: [np.zeros(len(classes), np.int64) for _ in seeds]}
    for name in CANDIDATES[1:]:
        dealt = []
        for s in seeds:
            generator = setting.generator(rng.Stream.EVALUATE, "augment", subject.name, name, str(s))
            dealt.append(dealt_mixture(pools[s], wanted[s][name], downstream.at, include[s], generator))
        fitted[name] = downstream.fit_mixtures(dealt, f"{stage}/{name}")
        added[name] = [count(mixture.made.label) for mixture in dealt]
    chosen = []
    for s in seeds:
        scores = {
            name: validation_score(domain.task, domain.validation.label, f.probabilities(domain.validation, s))
            for name, f in fitted.items()
        }
        chosen.append(choose(scores, {name: int(rows[s].sum()) for name, rows in added.items()}))
    figures = [
        {(CHOSEN, f"added_rows[{label}]"): float(added[chosen[s]][s][c]) for c, label in enumerate(classes)}
        | {(CHOSEN, f"chosen[{name}]"): float(name == chosen[s]) for name in CANDIDATES}
        for s in seeds
    ]
    return Fitted(
        lambda table, s: fitted[chosen[s]].probabilities(table, s), lambda table, s: fitted[chosen[s]].loss(table, s)
    ), figures


def fit_more(
    setting: Setting, subjects: Sequence[Subject], alone: Fitted, downstream: Downstream, name: str
) -> tuple[dict[tuple[str, str], Fitted], dict[tuple[str, str], list[Figures]]]:
    """The classifiers that `evaluation.real_fractions` and `evaluation.augmentation` ask for; none by default.

    Args:
      setting: the domain.
      subjects: generators. They were trained on all clients of a seed, also where the classifier reads a share of them.
      alone: trained on real records only.
      downstream: federated training of the classifier.
      name: of the domain's classifiers, for messages.

    Returns:
      (classifiers by (generator or "-", row), figures of those whose rows were chosen).
    """
    fits: dict[tuple[str, str], Fitted] = {}
    about: dict[tuple[str, str], list[Figures]] = {}
    seeds = range(setting.include.shape[0])

    def fit(row: str, share: float, tables: Sequence[Table], add: bool, stage: str) -> Fitted:
        mixtures = []
        for (
            s
        ) in seeds:  # the same address for every row: all keep the same clients, the smaller share some of the larger
            generator = setting.generator(rng.Stream.EVALUATE, "fraction", str(s))
            mixtures.append(fraction_mixture(tables[s], downstream.at, setting.include[s], share, add, generator))
        return downstream.fit_mixtures(mixtures, f"{stage}/{row}")

    for share in setting.config.real_fractions:
        if share < 1:
            row = fraction_row(share)
            unread = [Table(*(column[:0] for column in setting.domain.train))] * len(seeds)
            fits["-", row] = fit(row, share, unread, False, name)
            for subject in subjects:
                both = f"{row}+synthetic"
                fits[subject.name, both] = fit(both, share, subject.tables, True, f"{name}/{subject.name}")
    if setting.config.augmentation == "chosen":
        for subject in subjects:
            key = subject.name, CHOSEN
            fits[key], about[key] = fit_chosen(setting, subject, alone, downstream, f"{name}/{subject.name}/{CHOSEN}")
    return fits, about


def gains(row: str, with_rows: Figures, alone: Figures, base: str = "", over: str = "") -> Figures:
    """What synthetic rows added in one seed: each figure of `GAINED` less that of the same seed's real records alone.

    Means of these over seeds have a paired interval: what a seed does to both sides (other clients left out, another start)
    is in neither.

    Args:
      row: such as "real+synthetic".
      with_rows: figures of that row.
      alone: figures of the other side, under its own row.
      base: that row; "" = `row` up to its "+", the same real records.
      over: what the other side is, where it is not those.

    Returns:
      "<metric>_gain" under `row`, or "<metric>_gain[over <over>]"; NaN where either side is.
    """
    base, mark = base or row.split("+")[0], f"[over {over}]" if over else ""
    return {
        (row, f"{metric}_gain{mark}"): with_rows[row, metric] - alone[base, metric]
        for metric in GAINED
        if (row, metric) in with_rows and (base, metric) in alone
    }
