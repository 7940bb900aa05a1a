"""CTGAN or TVAE (Xu et al. 2019, arXiv 1907.00503) of a table, default settings: fits on a CSV, writes new rows."""

from __future__ import annotations

import argparse
import json
import time

import ctgan  # pyright: ignore[reportMissingImports]
import pandas as pd
import torch  # pyright: ignore[reportMissingImports]

from benchmarks import work


def main() -> None:
    """Fits, samples, and prints {"seconds", "versions"} as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("ctgan", "tvae"), required=True)
    parser.add_argument("--train", required=True, help="CSV to fit on")
    parser.add_argument("--out", required=True, help="CSV to write")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--discrete", nargs="+", required=True, help="columns of codes")
    args = parser.parse_args()
    torch.set_num_threads(2)
    frame = pd.read_csv(args.train)
    kind = ctgan.CTGAN if args.model == "ctgan" else ctgan.TVAE
    model = kind(epochs=args.epochs)
    model.set_random_state(args.seed)
    began = time.perf_counter()
    model.fit(frame, tuple(args.discrete))
    seconds = time.perf_counter() - began
    model.sample(args.rows).to_csv(args.out, index=False)
    print(json.dumps({"seconds": seconds, "versions": work.versions("ctgan", "torch", "numpy")}))


if __name__ == "__main__":
    main()
