"""Graphical models of discrete columns by `mbi` (McKenna, Apache-2.0): fitted to noisy marginals, asked, drawn from."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

_DRAWS = threading.Lock()  # the library draws from NumPy's global state

Clique = tuple[int, ...]


@contextlib.contextmanager
def library() -> Iterator[Any]:
    """The library in the numerics it needs; imported here, since few runs use it and it warns about single precision."""
    with (
        jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"),
        warnings.catch_warnings(),
    ):  # fmt: skip
        warnings.simplefilter("ignore")
        import mbi

        yield mbi


def fitted(mbi: Any, domain: Any, known: dict[Clique, tuple[np.ndarray, float]], start: Any, iterations: int) -> Any:
    """The graphical model whose marginals are closest to noisy ones: least squares weighted by precision, mirror descent.

    Args:
      mbi: the library.
      domain: its columns.
      known: of each clique the noisy marginal and the variance of its noise.
      start: the model before, or None.
      iterations: at most.

    Source: McKenna, Sheldon & Miklau 2019, arXiv 1901.09136.
    """
    answers = [mbi.LinearMeasurement(y, r, float(np.sqrt(variance))) for r, (y, variance) in known.items()]
    return mbi.estimation.MirrorDescent().estimate(domain, answers, iters=iterations, warm_start=start, tol=1e-6)


def megabytes(mbi: Any, domain: Any, cliques: list[Clique]) -> float:
    """Megabytes of the junction tree of a model with these marginals.

    Args:
      mbi: the library.
      domain: its columns.
      cliques: the marginals' columns.
    """
    return float(mbi.junction_tree.hypothetical_model_size(domain, cliques))


def model_marginals(mbi: Any, model: Any, sizes: tuple[int, ...]) -> dict[Clique, np.ndarray]:
    """All single and pair marginals of a graphical model: P(i, C') = sum over C - S - i of P(i, C) P(C' | S) along its tree.

    The library infers the tree's cliques; one elimination a pair, each compiled anew, would take it minutes a round.

    Args:
      mbi: the library.
      model: its graphical model, columns numbered from 0.
      sizes: codes of each column.

    Returns:
      Clique to f64[product of its sizes], row-major; each sums to the model's total.

    Source: Koller & Friedman 2009, Probabilistic Graphical Models, section 10.3.
    """
    tree, _ = mbi.junction_tree.make_junction_tree(model.domain, list(model.cliques))
    nodes = list(tree.nodes)
    inferred = mbi.marginal_oracles.message_passing_stable(model.potentials.expand(nodes), model.total)
    joint: dict[Clique, np.ndarray] = {}  # of each clique, axes in rising order
    for node in nodes:
        order = inferred[node].domain.attributes
        joint[node] = np.asarray(inferred[node].values, np.float64).transpose(np.argsort(order))
    home = {j: next(node for node in nodes if j in node) for j in range(len(sizes))}
    found: dict[Clique, np.ndarray] = {(j,): _summed(joint[home[j]], sorted(home[j]), [j]) for j in range(len(sizes))}
    for i in range(len(sizes)):
        start = home[i]
        waiting = [(start, None, joint[start], sorted(start))]
        while waiting:
            node, before, values, axes = waiting.pop()
            for j in node:
                if j > i:
                    found[i, j] = _summed(values, axes, [i, j])
            for other in tree.neighbors(node):
                if other == before:
                    continue
                shared = sorted(set(node) & set(other))
                if not shared:  # independent of all that came before
                    continue
                keep, out = sorted({i, *shared}), sorted({i, *other})
                own = joint[other]
                sums = _along(_summed(own, sorted(other), shared), shared, sorted(other))
                given = np.divide(own, sums, out=np.zeros_like(own), where=sums > 0)
                carried = _along(_summed(values, axes, keep), keep, out) * _along(given, sorted(other), out)
                waiting.append((other, node, carried, out))
        for j in range(i + 1, len(sizes)):
            if (i, j) not in found:
                found[i, j] = np.outer(found[i,], found[j,]) / float(model.total)
    return {r: values.ravel() for r, values in found.items()}


def _summed(values: np.ndarray, axes: list[int], keep: list[int]) -> np.ndarray:
    """Sums over all axes but `keep`; both in rising order."""
    return values.sum(tuple(k for k, a in enumerate(axes) if a not in keep))


def _along(values: np.ndarray, axes: list[int], out: list[int]) -> np.ndarray:
    """The same with axes of size 1 for those of `out` that it lacks."""
    size = dict(zip(axes, values.shape, strict=True))
    return values.reshape([size.get(a, 1) for a in out])


def draw(model: Any, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Codes of new records, i64[rows, d], whose marginals are the model's up to rounding.

    Args:
      model: of `fitted`.
      rows: how many.
      rng: seeds the library's draws.
    """
    with library(), _DRAWS:
        before = np.random.get_state()  # noqa: NPY002
        np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
        try:
            data = model.synthetic_data(rows).to_dict()
        finally:
            np.random.set_state(before)  # noqa: NPY002
    return np.stack([np.asarray(data[j], np.int64) for j in range(len(data))], 1)
