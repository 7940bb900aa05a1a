"""The work as anyone writes it in PyTorch: a loop over clients, `nn.Sequential`, `torch.optim.SGD`; one thread is fastest."""

from __future__ import annotations

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks import work
from benchmarks.peers import line, torch_net


def main() -> None:
    """Measures."""
    args = line.parse_arguments(__doc__, repeats=1, threads=1)
    torch.set_num_threads(args.threads)
    cohorts = work.cohorts(work.COHORT[args.work], args.rounds)
    x, y = torch_net.records()
    net, loss = torch_net.make_net(), nn.BCEWithLogitsLoss()
    params = list(net.parameters())

    def train(client: int, start: list[torch.Tensor], generator: torch.Generator) -> None:
        with torch.no_grad():
            torch._foreach_copy_(params, start)
        optimiser = torch.optim.SGD(params, lr=work.RATE)
        order = torch.randperm(work.ROWS, generator=generator)
        for rows, labels in zip(x[client, order].split(work.BATCH), y[client, order].split(work.BATCH), strict=True):
            optimiser.zero_grad()
            loss(net(rows)[:, 0], labels).backward()
            optimiser.step()

    def run() -> work.Layers:
        generator = torch.Generator().manual_seed(0)
        start = [p.detach().clone() for p in torch_net.make_net().parameters()]
        for cohort in cohorts.tolist():
            total = [torch.zeros_like(p) for p in start]
            for client in cohort:
                train(client, start, generator)
                torch._foreach_add_(total, [p.detach() for p in params])
            start = [p / len(cohort) for p in total]
        return torch_net.layers(start)

    line.print_line(line.measure("torch-loop", args, run, work.versions("torch", "numpy")))


if __name__ == "__main__":
    main()
