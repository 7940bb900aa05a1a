"""How close a synthetic table is to a real one: by column, jointly, in its gaps, and by what a classifier can tell apart."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from fedjax_health.attacks.base import public_space
from fedjax_health.data.schema import Schema
from fedjax_health.evaluation.columns import category_figures, numeric_figures
from fedjax_health.evaluation.distances import mmd, sliced_wasserstein
from fedjax_health.evaluation.manifold import manifold_figures
from fedjax_health.evaluation.missingness import missing_correlation_errors
from fedjax_health.evaluation.pairs import contingency_similarities, correlation_similarity, correlations
from fedjax_health.evaluation.plausibility import rule_violations, tail_coverage
from fedjax_health.evaluation.rows import Figures
from fedjax_health.types import Table, UserError

ROW = "synthetic"  # the row of the overall figures
FOLDS = 5
NAN = float("nan")

# The result then does not depend on the machine, and busy cores do not make threads spin (ten times slower).
one_thread = threadpool_limits.wrap(limits=1, user_api="openmp")


@one_thread
def c2st_auc(real: Table, synthetic: Table, schema: Schema, rng: np.random.Generator) -> float:
    """Classifier two-sample test: AUC of boosted trees at telling synthetic from real records, label included.

    Five folds that never split a client, so that trees cannot pass by recognising a client's other records. 0.5 =
    indistinguishable, 1 = told apart always; clearly below 0.5 is a sign of copied records (a copy in the training
    folds carries the other answer).

    Args:
      real, synthetic: the same number of rows.
      schema: categories go in as codes, missing values natively.
      rng: host generator.

    Returns:
      Mean AUC over folds; NaN where no fold has both kinds in both parts.

    Source: Lopez-Paz and Oquab (2017), arXiv 1610.06545.
    """
    x = np.concatenate([np.column_stack([t.values, t.label]) for t in (real, synthetic)]).astype(np.float64)
    y = np.repeat([0, 1], [len(real.label), len(synthetic.label)])
    groups = [np.unique(t.client, return_inverse=True)[1] for t in (real, synthetic)]
    fold = np.concatenate([rng.permutation(int(g.max(initial=-1)) + 1)[g] % FOLDS for g in groups])
    categorical = [*(c.kind != "numeric" for c in schema.inputs), True]
    seed = int(rng.integers(2**31))
    aucs = []
    for f in range(FOLDS):
        test = fold == f
        if len(np.unique(y[test])) == 2 and len(np.unique(y[~test])) == 2:
            usable = np.where(np.isnan(x[~test]).all(0), 0.0, x)  # of a column without any value no bins can be made
            trees = HistGradientBoostingClassifier(
                max_iter=60,
                early_stopping=False,  # pyright: ignore[reportArgumentType]
                categorical_features=categorical,  # pyright: ignore[reportArgumentType]
                random_state=seed,
            ).fit(usable[~test], y[~test])
            aucs.append(roc_auc_score(y[test], trees.predict_proba(usable[test])[:, 1]))
    return float(np.mean(aucs)) if aucs else NAN


def _take(table: Table, n: int, rng: np.random.Generator) -> Table:
    rows = np.sort(rng.permutation(len(table.label))[:n])
    return Table(table.values[rows], table.label[rows], table.client[rows])


def similarity(
    real: Table, synthetic: Table, schema: Schema, rng: np.random.Generator, *, max_rows: int = 5000
) -> Figures:
    """Every similarity figure of one synthetic table (or of a second real one, or of a baseline) against a real one.

    Args:
      real: held-out real records.
      synthetic: records to judge.
      schema: their columns.
      rng: host generator, for subsampling, folds and grouping.
      max_rows: most rows a side for coverage and the classifier test, which take equally many from both.

    Returns:
      Row <feature>: numeric: real_mean, real_sd, synthetic_mean, synthetic_sd (over records, in the unit), welch_p,
      tost_p (see `equivalence`), ks_complement, wasserstein_sd (Wasserstein-1 over the real SD), js_distance (20 real
      quantile bins); categorical: tv_complement, js_distance; nullable: missing_rate_difference (synthetic - real).
      Row "synthetic": means over columns of ks_complement, tv_complement, tail_coverage and wasserstein_sd (columns constant
      in the real table have no SD and are left out); correlation_error_mean and _max, |Δ Spearman ρ| over pairs of numeric
      columns; correlation_similarity (Pearson); contingency_similarity, mean over pairs with a category;
      missing_correlation_error_mean and _max (see `missing_correlation_errors`); those of `manifold_figures`;
      sliced_wasserstein and mmd; c2st_auc; rule_violations; label_rate_difference, P_S(class ≠ 0) - P_R(class ≠ 0). A column
      that is missing throughout gives NaN, and so does the mean over columns. Means over no column, and errors over no pair,
      are left out.

    Raises:
      UserError: a table has no rows.
    """
    for name, table in (("real", real), ("synthetic", synthetic)):
        if not len(table.label):
            raise UserError(f"similarity of {schema.name!r}: the {name} table has no rows; give it at least one record")
    figures: Figures = {}
    means: dict[str, list[float]] = {
        "ks_complement": [],
        "tv_complement": [],
        "wasserstein_sd": [],
        "tail_coverage": [],
    }
    for j, column in enumerate(schema.inputs):
        if column.kind == "numeric":
            found = numeric_figures(real, synthetic, j, rng)
        else:
            found = category_figures(real.values[:, j], synthetic.values[:, j], len(column.categories))
        for metric, values in means.items():
            if metric in found and not (metric == "wasserstein_sd" and found["real_sd"] == 0):
                values.append(found[metric])
        if column.nullable:
            rates = [float(np.isnan(t.values[:, j]).mean()) for t in (real, synthetic)]
            found["missing_rate_difference"] = rates[1] - rates[0]
        figures.update({(column.name, metric): value for metric, value in found.items()})
        if column.kind == "numeric":
            means["tail_coverage"].append(tail_coverage(real.values[:, j], synthetic.values[:, j]))
    figures.update({(ROW, metric): float(np.mean(values)) for metric, values in means.items() if values})
    numeric = [j for j, c in enumerate(schema.inputs) if c.kind == "numeric"]
    if len(numeric) > 1:
        upper = np.triu_indices(len(numeric), 1)
        r, s = real.values[:, numeric], synthetic.values[:, numeric]
        error = np.abs(correlations(r, "spearman") - correlations(s, "spearman"))[upper]
        figures[ROW, "correlation_error_mean"] = float(error.mean())
        figures[ROW, "correlation_error_max"] = float(error.max())
        figures[ROW, "correlation_similarity"] = correlation_similarity(r, s)
    if len(joint := contingency_similarities(real, synthetic, schema)):
        figures[ROW, "contingency_similarity"] = float(joint.mean())
    errors = missing_correlation_errors(real, synthetic, schema)
    if len(errors):
        figures[ROW, "missing_correlation_error_mean"] = float(errors.mean())
        figures[ROW, "missing_correlation_error_max"] = float(errors.max())
    n = min(len(real.label), len(synthetic.label), max_rows)
    few_real, few_synthetic = _take(real, n, rng), _take(synthetic, n, rng)
    points = public_space(few_real, schema), public_space(few_synthetic, schema)
    figures.update({(ROW, metric): value for metric, value in manifold_figures(*points).items()})
    figures[ROW, "c2st_auc"] = c2st_auc(few_real, few_synthetic, schema, rng)
    figures[ROW, "sliced_wasserstein"] = sliced_wasserstein(*points, rng)
    figures[ROW, "mmd"] = mmd(*points, rng)
    figures[ROW, "rule_violations"] = rule_violations(synthetic, schema)
    figures[ROW, "label_rate_difference"] = float(np.mean(synthetic.label != 0) - np.mean(real.label != 0))
    return figures


def overall(figures: Figures, row: str) -> Figures:
    """The overall figures under another row, such as "real-vs-real" or "gaussian-copula", without the columns' ones.

    Args:
      figures: what `similarity` returned.
      row: their row in the table.
    """
    return {(row, metric): value for (at, metric), value in figures.items() if at == ROW}
