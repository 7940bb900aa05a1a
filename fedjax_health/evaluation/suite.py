"""All tables of one domain: similarity, utility or detection, membership, fairness, with floors, ceilings and curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from fedjax_health import rng
from fedjax_health.attacks.base import Attack, Published
from fedjax_health.checks import RIVALS
from fedjax_health.data.split import take_clients
from fedjax_health.evaluation import augmentation, baselines, collapse, curves, fairness
from fedjax_health.evaluation.downstream import VIEWS, Downstream, Fitted
from fedjax_health.evaluation.membership import client_scores, dp_ceiling, membership_rows, record_rows
from fedjax_health.evaluation.rows import Figures, seed_rows
from fedjax_health.evaluation.setting import Setting, Subject, included
from fedjax_health.evaluation.similarity import overall, similarity
from fedjax_health.types import Row, Table

COPULA = "gaussian-copula"
MARGINALS = "independent-marginals"
CEILING = "real-vs-real"
WHITE_BOX = "white-box"
OVERALL_ROWS = (*VIEWS, CEILING, COPULA, MARGINALS, *RIVALS)  # rows that judge a whole table, not one feature of it
Pairs: TypeAlias = Sequence[tuple[np.ndarray, np.ndarray]]  # of each seed, scores of member and of non-member clients
MOST_TARGETS = 500  # members, and as many non-members, a seed: three seeds then resolve a 1 % false-positive rate


def rows_of_clients(table: Table, clients: np.ndarray, most: int, generator: np.random.Generator) -> Table:
    """Records of randomly chosen clients until about `most` rows are reached.

    Args:
      table: client-major.
      clients: i[n], candidates.
      most: rows.
      generator: chooses.
    """
    count = np.bincount(table.client)
    order = generator.permutation(clients)
    enough = int(np.searchsorted(np.cumsum(count[order]), most)) + 1
    return take_clients(table, np.sort(order[:enough]))


def similarity_rows(setting: Setting, subjects: Sequence[Subject], rivals: Mapping[str, Sequence[Table]]) -> list[Row]:
    """Table 1, against held-out clients; ceiling: other real clients; floors: fitted on the pooled training records.

    Args:
      setting: the domain.
      subjects: generators.
      rivals: of `rivals.rival_tables`.
    """
    domain, rows, most = setting.domain, [], setting.config.max_rows
    seeds = setting.include.shape[0]

    def against(table: Table, name: str, s: int) -> Figures:
        generator = setting.generator(rng.Stream.EVALUATE, name, str(s))
        figures = similarity(domain.test, table, domain.schema, generator, max_rows=most)
        trained = Table(*(column[setting.include[s][domain.train.client]] for column in domain.train))
        return figures | collapse.collapse_figures(domain.test, table, trained, domain.schema, most)

    train = []
    for s in range(seeds):
        generator = setting.generator(rng.Stream.EVALUATE, "train", str(s))
        train.append(rows_of_clients(domain.train, included(setting, s, True), most, generator))
    marks = {
        CEILING: lambda s, generator: train[s],
        COPULA: lambda s, generator: baselines.gaussian_copula(train[s], domain.schema, most, generator),
        MARGINALS: lambda s, generator: baselines.independent_marginals(train[s], domain.schema, most, generator),
        **{name: lambda s, _, made=made: Table(*(c[:most] for c in made[s])) for name, made in rivals.items()},
    }

    def mark(name: str, s: int) -> Figures:
        table = marks[name](s, setting.generator(rng.Stream.EVALUATE, name, str(s)))
        return overall(against(table, name, s), name)

    # one thread a judgement and as many judgements at once as there are cores: each is too small to share out
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        marked = {name: [pool.submit(mark, name, s) for s in range(seeds)] for name in marks}
        judged = {g.name: [pool.submit(against, t, g.name, s) for s, t in enumerate(g.tables)] for g in subjects}
    marks_found = {name: [r.result() for r in results] for name, results in marked.items()}
    for per_seed in marks_found.values():
        rows += seed_rows(domain.name, "-", per_seed)
    for name, results in judged.items():
        per_seed = [r.result() for r in results]
        rows += seed_rows(domain.name, name, per_seed)
        compared = [(row, marks_found[row]) for row in (CEILING, COPULA)]
        rows += collapse.verdict_rows(domain.name, name, per_seed, *compared)
    return rows


class Fits(NamedTuple):
    """Classifiers by (generator or "-", row of the table), and figures of how some were trained, one a seed.

    Attributes:
      by_row: of every table that judges classifiers.
      about: figures that stand with a row's own.
      detectors: of the detection table alone, (records, seed) -> f64[M, L] as `detection.detection_figures` takes them.
    """

    by_row: dict[tuple[str, str], Fitted]
    about: dict[tuple[str, str], list[Figures]]
    detectors: dict[tuple[str, str], Callable[[Table, int], np.ndarray]] = {}  # noqa: RUF012 - of an immutable tuple


def fit_all(
    setting: Setting, subjects: Sequence[Subject], rivals: Mapping[str, list[Table]], downstream: Downstream
) -> Fits:
    """Trains the classifier on real, on each generator's records, on both, on the copula floor, and on the rivals.

    Args:
      setting: the domain.
      subjects: generators.
      rivals: of `rivals.rival_tables`.
      downstream: federated training of the classifier.
    """
    domain = setting.domain
    real, synthetic, both = VIEWS
    total = len(domain.train.label)
    copulas = []
    for s in range(setting.include.shape[0]):
        kept = take_clients(domain.train, included(setting, s, True))
        copulas.append(
            baselines.gaussian_copula(kept, domain.schema, total, setting.generator(rng.Stream.EVALUATE, "fit", str(s)))
        )
    name = f"{domain.name}/classifier"
    fits = {("-", real): downstream.fit(real, copulas, f"{name}/real")}
    fits["-", COPULA] = downstream.fit(synthetic, copulas, f"{name}/{COPULA}")
    for rival, made in rivals.items():
        fits["-", rival] = downstream.fit(synthetic, made, f"{name}/{rival}")
    for subject in subjects:
        for view in (synthetic, both):
            fits[subject.name, view] = downstream.fit(view, subject.tables, f"{name}/{subject.name}/{view}")
    more, about = augmentation.fit_more(setting, subjects, fits["-", real], downstream, name)
    return Fits(fits | more, about)


def shift_rows(setting: Setting, subjects: Sequence[Subject]) -> list[Row]:
    """Share of each subgroup in the synthetic records less its share among held-out clients."""
    domain = setting.domain
    return [
        row
        for subject in subjects
        for row in seed_rows(
            domain.name, subject.name, [fairness.subgroup_shift(domain.test, t, domain.schema) for t in subject.tables]
        )
    ]


class Targets(NamedTuple):
    """Members and as many non-members of one seed, exchangeable by construction, the unit being the client."""

    member: Table
    outsider: Table


def make_targets(setting: Setting, seed: int) -> Targets:
    """Attack targets of a seed: the clients left out, and as many of the others at random.

    Args:
      setting: the domain.
      seed: index on the N axis.
    """
    generator = setting.generator(rng.Stream.ATTACK, "targets", str(seed))
    outside, inside = included(setting, seed, False), included(setting, seed, True)
    n = min(len(outside), len(inside), MOST_TARGETS)
    sides = [np.sort(generator.permutation(side)[:n]) for side in (inside, outside)]
    return Targets(*(take_clients(setting.domain.train, side) for side in sides))


def membership_tables(
    setting: Setting,
    subjects: Sequence[Subject],
    fits: Fits,
    attacks: dict[str, Attack],
    tell: Callable[[str, str, Pairs], None] = lambda *_: None,
) -> tuple[list[Row], list[tuple[str, str, str, float, float]]]:
    """Table 3: what an attacker learns about who took part, by client, and the ROC curves of the published seed.

    Args:
      setting: the domain.
      subjects: generators.
      fits: trained classifiers.
      attacks: by name; "loss-threshold" attacks the classifiers, the others the synthetic table.
      tell: is told (model, row, scores of each seed's member and non-member clients) of every attack.

    Returns:
      (rows, curves as (domain, model, row, fpr, tpr)). Row "...:white-box" is the generator's own score: of a GAN what its
      critic says (LOGAN, white box), of others their evidence for the record.
    """
    domain, seeds = setting.domain, setting.include.shape[0]
    targets = [make_targets(setting, s) for s in range(seeds)]
    several = any(len(side.label) > len(np.unique(side.client)) for t in targets for side in t)
    reference = domain.validation
    rows: list[Row] = []
    points: list[tuple[str, str, str, float, float]] = []
    asked: list[tuple[str, str, Callable[[Table, int], np.ndarray]]] = []  # model, row, (records, seed) -> scores

    # an attack that fits something fits it once for both sides, and several that ask for the same distances see the same arrays
    both = [Table(*(np.concatenate(pair) for pair in zip(*sides, strict=True))) for sides in targets]

    def score_both(score: Callable[[Table, int], np.ndarray], s: int) -> list[np.ndarray]:
        return np.split(score(both[s], s), [len(targets[s].member.label)])

    def run(attack: Attack, published: Callable[[int], Published], *names: str) -> Callable[[Table, int], np.ndarray]:
        def score(table: Table, s: int) -> np.ndarray:
            generator = setting.generator(rng.Stream.ATTACK, attack.name, *names, str(s))
            return attack.score(published(s), table, domain.schema, generator)

        return score

    def on_classifier(fitted: Fitted) -> Callable[[int], Published]:
        return lambda s: Published(None, reference, lambda table: fitted.loss(table, s))

    loss = attacks["loss-threshold"]
    asked.append(("-", f"model-on-real:{loss.name}", run(loss, on_classifier(fits.by_row["-", "real"]), "real")))
    for subject in subjects:
        fitted = fits.by_row[subject.name, "synthetic"]
        asked.append((subject.name, f"model-on-synthetic:{loss.name}", run(loss, on_classifier(fitted), subject.name)))
        seen = [Table(*(column[: subject.published] for column in t)) for t in subject.tables]
        for attack in attacks.values():
            if attack is not loss:
                score = run(attack, lambda s, seen=seen: Published(seen[s], reference, None), subject.name)
                asked.append((subject.name, f"federated+synthetic:{attack.name}", score))
        asked.append((subject.name, f"federated+synthetic:{WHITE_BOX}", subject.score))
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = [[pool.submit(score_both, score, s) for s in range(seeds)] for _, _, score in asked]
    for (model, row, _), per_seed in zip(asked, answers, strict=True):
        records = [(member, outsider) for member, outsider in (answer.result() for answer in per_seed)]
        pairs = [
            (client_scores(member, t.member.client), client_scores(outsider, t.outsider.client))
            for (member, outsider), t in zip(records, targets, strict=True)
        ]
        tell(model, row, pairs)
        rows += membership_rows(domain.name, model, row, pairs)
        if several:
            rows += record_rows(domain.name, model, row, records)
        points += [
            (domain.name, model, row, float(f), float(t)) for f, t in zip(*curves.roc_points(*pairs[0]), strict=True)
        ]
    if setting.promise is not None:
        rows += seed_rows(domain.name, "-", [dp_ceiling(*setting.promise)])
    return rows, points
