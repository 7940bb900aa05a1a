"""How long the neighbour searches of `fedjax_health.neighbours` take, beside trees, and the memory of the process.

`python -m benchmarks.neighbours [--quick] [--out FILE]`: 100,000 × 100,000 rows × 10 columns of N(0, 1), on which a tree helps
least, as synthetic noise would be; --quick 20,000. Wall time in seconds, and processor time of all threads, which other work
on the machine does not lengthen. Trees are scikit-learn's k-d tree and SciPy's, k = 5, both with two workers; for them
20,000 queries stand for all, and the time is multiplied (queries are independent of one another).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial import KDTree
from sklearn.neighbors import NearestNeighbors

from benchmarks import report, work
from fedjax_health import neighbours

ROWS, QUICK_ROWS, COLUMNS, K = 100_000, 20_000, 10, 5
TREE_QUERIES = 20_000
REPEATS = 3
PACKAGES = ("numpy", "scipy", "scikit-learn")


def results(rows: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of each search, in turn, and the peak memory of those that the project uses.

    Args:
      rows: of either table.
      repeats: passes over all searches.
    """
    generator = np.random.default_rng(0)
    points, to = generator.normal(size=(2, rows, COLUMNS))
    radius = np.full(rows, 1.0)
    few = points[:TREE_QUERIES]

    def sklearn_tree() -> None:
        NearestNeighbors(n_neighbors=K, algorithm="kd_tree", n_jobs=2).fit(to).kneighbors(few)

    ours: dict[str, Callable[[], Any]] = {
        "nearest, k = 1": lambda: neighbours.nearest(points, to),
        f"nearest, k = {K}": lambda: neighbours.nearest(points, to, K),
        f"nearest others, k = {K}": lambda: neighbours.nearest_others(points, K),
        "ball counts": lambda: neighbours.ball_counts(points, to, radius),
    }
    trees: dict[str, Callable[[], Any]] = {
        f"scikit-learn k-d tree, k = {K}": sklearn_tree,
        f"scipy k-d tree, k = {K}": lambda: KDTree(to).query(few, k=K, workers=2),
    }
    wall: dict[str, list[float]] = {name: [] for name in (*ours, *trees)}
    processor: dict[str, list[float]] = {name: [] for name in wall}

    def once(name: str, search: Callable[[], Any], factor: float) -> None:
        began = time.process_time()
        seconds, _ = work.timed(search)
        wall[name].append(seconds * factor)
        processor[name].append((time.process_time() - began) * factor)

    found = []
    with work.peak_memory() as peak:
        for _ in range(repeats):
            for name, search in ours.items():
                once(name, search, 1.0)
        found.append(report.make_result(f"neighbours/peak memory, {rows} rows", [peak()], "MB"))
    for _ in range(repeats):
        for name, search in trees.items():
            once(name, search, rows / len(few))
    for name in wall:
        against = f"nearest, k = {K}" if name in trees else None
        for kind, seconds in (("wall", wall), ("processor", processor)):
            compared = (against and f"neighbours/{against}, {rows} rows, {kind}", seconds[against] if against else ())
            found.append(report.make_result(f"neighbours/{name}, {rows} rows, {kind}", seconds[name], "s", *compared))
    return found


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows, one pass")
    parser.add_argument("--out", help="file for the JSON object")
    args = parser.parse_args()
    found = results(QUICK_ROWS, 1) if args.quick else results(ROWS, REPEATS)
    report.finish(report.make_report("neighbours", report.host(), work.versions(*PACKAGES), found), args.out)


if __name__ == "__main__":
    main()
