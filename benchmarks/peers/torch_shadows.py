"""Work D as anyone writes it in PyTorch: a loop over models, `nn.Sequential`, `torch.optim.Adam`; one thread is fastest."""

from __future__ import annotations

import argparse

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks import work, work_d
from benchmarks.peers import torch_net


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=work_d.MODELS, help="of the 64, so that a repeat takes less")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, y = (torch.from_numpy(array) for array in work_d.make_pool())
    rows = torch.from_numpy(work_d.halves()).long()[: args.models]
    criterion, losses = nn.BCEWithLogitsLoss(), [0.0] * args.models

    def run() -> None:
        generator = torch.Generator().manual_seed(0)
        for i, mine in enumerate(rows):
            net = torch_net.make_net()
            optimiser = torch.optim.Adam(net.parameters(), lr=work_d.RATE)
            own_x, own_y = x[mine], y[mine]
            for _ in range(work_d.EPOCHS):
                order = torch.randperm(work_d.ROWS, generator=generator)
                for batch in order.split(work_d.BATCH):
                    optimiser.zero_grad()
                    criterion(net(own_x[batch])[:, 0], own_y[batch]).backward()
                    optimiser.step()
            with torch.no_grad():
                losses[i] = float(criterion(net(own_x)[:, 0], own_y))

    found = work_d.measure(run, args.models, args.repeats)
    work_d.print_rates(found, sum(losses) / len(losses), work.versions("torch", "numpy"))


if __name__ == "__main__":
    main()
