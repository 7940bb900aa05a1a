"""A made-up run directory for the report's tests: plausible figures for two domains and two models."""

from __future__ import annotations

import csv
import json
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest

from fedjax_health.report import figures, html
from fedjax_health.types import Row

NAN = math.nan
EPSILON = 3.3951
FEATURES = {
    "vitals": {"heart_rate": (72.4, 10.5), "glucose": (110.3, 15.8), "spo2": (97.5, 1.6), "systolic_bp": (124.0, 14.2),
               "temperature": (36.8, 0.42), "respiration": (16.1, 2.9), "age": (61.0, 14.0)},
    "threats": {"packet_rate": (210.0, 95.0), "payload_bytes": (1480.0, 620.0), "inter_arrival": (0.24, 0.11),
                "entropy": (5.1, 1.3)},
}  # fmt: skip
MODELS = {"vae": 0.02, "wgan_gp": 0.05}  # how far each model is from the truth


UNITS = {"heart_rate": "bpm", "glucose": "mg/dL", "payload_bytes": "B"}


def schema(domain):
    numeric = [
        {"name": name, "kind": "numeric", "role": "feature", "unit": UNITS.get(name, ""), "low": 0, "high": 1e6,
         "transform": "log1p" if name == "payload_bytes" else "identity"}
        for name in FEATURES[domain]
    ]  # fmt: skip
    sex = {"name": "sex", "kind": "binary", "role": "group", "categories": ["female", "male"]}
    label = {"name": "outcome", "kind": "binary", "role": "label", "categories": ["well", "ill"]}
    return {"name": domain, "columns": [*numeric, sex, label]}


def near(value, half, n=5, top=1.0):
    return value, max(0.0, value - half), min(top, value + half), n


def similarity(domain):
    for model, off in MODELS.items():
        for name, (mean, sd) in FEATURES[domain].items():
            for metric, value in (("real_mean", mean), ("synthetic_mean", mean - off * sd)):
                yield Row(domain, model, name, metric, value, value - 0.03 * sd, value + 0.03 * sd, 240)
            yield Row(domain, model, name, "real_sd", sd, NAN, NAN, 240)
            yield Row(domain, model, name, "synthetic_sd", sd * (1 - off), NAN, NAN, 240)
            yield Row(domain, model, name, "welch_p", 0.43 if off < 0.03 else 0.0002, NAN, NAN, 240)
            yield Row(domain, model, name, "tost_p", 0.00003, NAN, NAN, 240)
            for metric, value in (
                ("ks_complement", 0.97 - off),
                ("wasserstein_sd", 0.02 + off),
                ("js_distance", 0.04 + off),
            ):
                yield Row(domain, model, name, metric, *near(value, 0.011))
        yield Row(domain, model, "sex", "tv_complement", *near(0.985, 0.006))
        yield Row(domain, model, "sex", "js_distance", *near(0.012, 0.004))
    overall = {("-", "real-vs-real"): 0.0, ("-", "independent-marginals"): 0.3, ("-", "gaussian-copula"): 0.1}
    for (model, row), off in {**{(m, "synthetic"): o for m, o in MODELS.items()}, **overall}.items():
        values = {"ks_complement": 0.98 - 0.1 * off, "tv_complement": 0.99 - 0.1 * off, "wasserstein_sd": 0.03 + off}
        values |= {
            "correlation_error_mean": 0.01 + 0.5 * off,
            "correlation_error_max": 0.03 + off,
            "coverage": 0.96 - off,
        }
        values |= {"c2st_auc": 0.51 + off}
        for metric, value in values.items():
            yield Row(domain, model, row, metric, *near(value, 0.013))


def utility(domain):
    rows = {("-", "real"): 0.0, ("-", "gaussian-copula"): 0.06}
    for model, off in MODELS.items():
        rows |= {(model, "synthetic"): off, (model, "real+synthetic"): -0.005}
    for (model, row), off in rows.items():
        for k, metric in enumerate(("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auroc", "pr_auc")):
            yield Row(domain, model, row, metric, *near((0.90, 0.88, 0.86, 0.87, 0.865, 0.93, 0.81)[k] - off, 0.021))


def membership(domain):
    rows = [("-", "model-on-real:loss-threshold", 0.64, 0.05)]
    for model in MODELS:
        rows += [
            (model, "model-on-synthetic:loss-threshold", 0.52, 0.011),
            (model, "federated+synthetic:loss-threshold", 0.505, 0.01),
        ]
        rows += [(model, "synthetic:distance-to-nearest", 0.513, 0.012), (model, "generator:domias", 0.531, 0.017)]
    for model, row, auc, tpr in rows:
        yield Row(domain, model, row, "auc", *near(auc, 0.02, 400))
        yield Row(domain, model, row, "success (%)", *near(100 * auc - 0.6, 2.4, 400, 100))
        yield Row(domain, model, row, "balanced_accuracy", *near(auc - 0.006, 0.024, 400))
        yield Row(domain, model, row, "tpr_at_1pct_fpr", *near(tpr, 0.009, 400))
        yield Row(domain, model, row, "tpr_at_0p1pct_fpr", *near(tpr / 8, 0.004, 400))
    for metric, fpr in (("tpr_at_1pct_fpr", 0.01), ("tpr_at_0p1pct_fpr", 0.001)):
        yield Row(
            domain, "-", "dp-ceiling", metric, float(figures.ceiling_tpr(np.array(fpr), EPSILON, 1e-5)), NAN, NAN, 1
        )


def detection():
    rows = {("-", "real"): 0.0, ("-", "real+smote"): 0.0}
    for model, off in MODELS.items():
        rows |= {(model, "synthetic"): off, (model, "real+synthetic"): -0.02}
    for (model, row), off in rows.items():
        for metric, value in (
            ("detection_rate", 0.89),
            ("detection_at_1pct_fpr", 0.78),
            ("pr_auc", 0.91),
            ("macro_f1", 0.84),
        ):
            yield Row("threats", model, row, metric, *near(value - off, 0.018))
        yield Row("threats", model, row, "false_positive_rate", *near(0.06 + off / 4, 0.008))
        for kind, value in (("flood", 0.97), ("scan", 0.93), ("replay", 0.71), ("<b>spoof</b>", 0.66)):
            yield Row("threats", model, row, f"detection_rate[{kind}]", *near(value - off, 0.03))


def costs(domain):
    for model, factor in (("vae", 1.0), ("wgan_gp", 2.4)):
        yield Row(domain, model, "client", "bytes up a round", 3.8e5 * factor, 3.8e5 * factor, 3.8e5 * factor, 1)
        values = {"bytes up in all": 8.1e8, "FLOPs in all": 3.3e12}
        for metric, value in values.items():
            yield Row(domain, model, "federation", metric, *(value * factor * f for f in (1, 0.97, 1.03)), 5)
        for metric, value in (("round latency p95 (s)", 11.9), ("energy in all (J)", 8120.0)):
            yield Row(domain, model, "devices", metric, *(value * factor * f for f in (1, 0.97, 1.03)), 5)
        yield Row(domain, model, "machine", "compile (s)", 6.4, NAN, NAN, 1)


def fairness(domain):
    for model, row in (("-", "real"), *((m, r) for m in MODELS for r in ("synthetic", "real+synthetic"))):
        for group in ("sex=female", "sex=male"):
            yield Row(domain, model, row, f"share[{group}]", *near(0.5, 0.01))
            yield Row(domain, model, row, f"recall[{group}]", *near(0.86, 0.03))
        yield Row(domain, model, row, "equalised_odds_difference[sex]", *near(0.04, 0.03))


def privacy(domain):
    for model in MODELS:
        yield Row(domain, model, "train", "epsilon", 1.6201, NAN, NAN, 1)
        yield Row(domain, model, "audit", "epsilon_estimate", 0.41, 0.0, 0.93, 200)


def save(path, columns, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([["" if isinstance(v, float) and math.isnan(v) else v for v in row] for row in rows])


def save_curves(tables_dir):
    density, rho, roc = [], [], []
    rng = np.random.default_rng(3)
    for domain, features in FEATURES.items():
        truth = np.corrcoef(rng.normal(size=(len(features), 9)))
        for model, off in {"real": 0.0, **MODELS}.items():
            for name, (mean, sd) in features.items():
                edges = np.linspace(mean - 3.2 * sd, mean + 3.2 * sd, 41)
                middle = (edges[1:] + edges[:-1]) / 2
                height = np.exp(-0.5 * ((middle - mean + 4 * off * sd) / (sd * (1 - off))) ** 2) / sd
                density += [(domain, model, name, a, b, h) for a, b, h in zip(edges, edges[1:], height, strict=False)]
            density += [(domain, model, "sex", k, k, (0.52, 0.48)[k] + (off, -off)[k]) for k in (0, 1)]
            for i, a in enumerate(features):
                for j, b in enumerate(features):
                    noise = 4 * off * rng.normal() * 0.3 if i != j else 0.0
                    rho.append((domain, model, a, b, float(np.clip(truth[i, j] + noise, -1, 1))))
        for model, row, power in (
            ("vae", "generator:domias", 0.93),
            ("wgan_gp", "generator:domias", 0.9),
            ("-", "model-on-real:loss-threshold", 0.7),
        ):
            for x in (0.0, *np.geomspace(0.0025, 1, 50)):
                roc.append((domain, model, row, x, x**power))
    save(f"{tables_dir}/distributions.csv", ("domain", "model", "feature", "left", "right", "density"), density)
    save(f"{tables_dir}/correlations.csv", ("domain", "model", "feature_a", "feature_b", "rho"), rho)
    save(f"{tables_dir}/roc.csv", ("domain", "model", "row", "fpr", "tpr"), roc)


def save_rounds(path):
    rng = np.random.default_rng(5)
    with open(path, "w", encoding="utf-8") as file:
        for stage in [f"{d}/{m}" for d in FEATURES for m in MODELS]:
            for t in range(0, 200, 4):
                for seed in range(3):
                    line = {
                        "stage": stage,
                        "round": t,
                        "seed": seed,
                        "privacy/epsilon": 1.62 * math.sqrt((t + 1) / 200),
                    }
                    line |= {
                        "public/update_norm": 0.3 * math.exp(-t / 90) + 0.02 * rng.random(),
                        "sim/clip_fraction": 0.4 + 0.1 * rng.random(),
                    }
                    line |= {
                        "sim/cohort_size": float(rng.integers(85, 115)),
                        "sim/loss": None if t == 8 else 4 * math.exp(-t / 50) + rng.random() * 0.2,
                    }
                    file.write(json.dumps(line) + "\n")


def make_workdir(path, pictures=True):
    """A run's files, plausible figures for two domains and two models; without `pictures` nothing has to be drawn."""
    path = str(path)
    for name in ("tables", "synthetic"):
        os.makedirs(os.path.join(path, name))
    both = tuple(FEATURES)
    for name, rows in {
        "similarity": [r for d in both for r in similarity(d)], "utility": list(utility("vitals")),
        "membership": [r for d in both for r in membership(d)], "detection": list(detection()),
        "efficiency": [*costs(both[0]), *costs(both[1]), Row("-", "-", "machine", "wall time (s)", 98.7, NAN, NAN, 1)],
        "fairness": list(fairness("vitals")),
        "privacy": [r for d in both for r in privacy(d)],
    }.items():  # fmt: skip
        save(f"{path}/tables/{name}.csv", Row._fields, rows)
    if pictures:
        save_curves(f"{path}/tables")
        save_rounds(f"{path}/metrics.jsonl")
    events = [
        {"name": f"{d}/{m}", "release": "generator and synthetic table", "event": "Poisson-sampled Gaussian",
         "epsilon": 1.6201, "rounds": 200, "noise_multiplier": 1.31, "l2_clip_norm": 0.5, "sampling_probability": 0.05}
        for d in both for m in MODELS
    ]  # fmt: skip
    write_json(f"{path}/privacy_ledger.json", {
        "unit": "client", "relation": "add_or_remove_one", "delta": 1e-5, "epsilon_total": EPSILON,
        "epsilon_replace_one": 6.51,
        "delta_replace_one": 3.08e-4, "target_epsilon": 3.5, "accountant": "PLD (dp-accounting 0.6.0)",
        "mechanism": "gaussian", "events": events, "not_covered": ["The choice of hyper-parameters on this data set.",
                                            "What devices reveal by being online."],
    })  # fmt: skip
    write_json(f"{path}/manifest.json", {
        "status": "done", "versions": {"fedjax_health": "0.1.0", "jax": "0.10.2", "numpy": "2.4.0"},
        "device": "cpu x 4", "seeds": [0, 1, 2, 3, 4], "commit": "3f2c1ab", "started": "2026-01-05 09:12 UTC",
        "seconds": {"train": 82.4, "evaluate": 31.0},
        "notes": {"vitals": ["Simulated: 2 000 clients, 118 204 records."],
                  "threats": ["17 values clipped to the public range of packet_rate."]},
    })  # fmt: skip
    write_json(f"{path}/config.json", {"data": {"name": "vitals"}, "federated": {"rounds": 200, "cohort": 100}})
    write_json(f"{path}/synthetic/schema.json", {"schemas": {d: schema(d) for d in both}})
    for name in ("vitals_vae.parquet", "vitals_vae.csv"):
        with open(f"{path}/synthetic/{name}", "wb") as file:
            file.write(b"x" * 48_213)
    return path


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)


def edit_json(path, **changes):
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    write_json(path, {**value, **changes})


def render(workdir):
    with open(html.render_report(workdir), encoding="utf-8") as file:
        return file.read()


@pytest.fixture(scope="session")
def fake():
    """What makes and edits a run directory."""
    return SimpleNamespace(make=make_workdir, save=save, write_json=write_json, edit_json=edit_json, render=render)


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """(workdir, page) of a whole run, drawn once."""
    workdir = make_workdir(tmp_path_factory.mktemp("whole") / "iot")
    return workdir, render(workdir)


@pytest.fixture
def light(tmp_path):
    """A run directory with nothing to draw."""
    return make_workdir(tmp_path / "iot", pictures=False)
