"""The work in Flower (Beutel et al. 2020, arXiv:2007.14390): its FedAvg, clients simulated by Ray, one core a client.

A round's clients are those of the common cohorts: a message names the client whose records the node takes, since Flower
samples nodes by itself. The first round starts Ray's actors and is not counted; each later round is one repeat, so that
--rounds 4 gives three.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterable

# read when Flower and Ray start: no calls home, and the actors find `benchmarks`
os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ["PYTHONPATH"] = str(pathlib.Path(__file__).parents[2])

import torch  # pyright: ignore[reportMissingImports]
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict  # pyright: ignore
from flwr.clientapp import ClientApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp import Grid, ServerApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp.strategy import FedAvg  # pyright: ignore[reportMissingImports]
from flwr.simulation import run_simulation  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks import work
from benchmarks.peers import line, torch_net

CORES = os.cpu_count() or 1


def train(message: Message, context: Context) -> Message:
    """One client's update.

    Args:
      message: the global parameters, and the client to be.
      context: of the node; not used.
    """
    torch.set_num_threads(1)
    x, y = torch_net.records()
    client = int(message.content["config"]["client"])
    net, loss = torch_net.make_net(), nn.BCEWithLogitsLoss()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimiser = torch.optim.SGD(net.parameters(), lr=work.RATE)
    order = torch.randperm(work.ROWS)
    for rows, labels in zip(x[client, order].split(work.BATCH), y[client, order].split(work.BATCH), strict=True):
        optimiser.zero_grad()
        loss(net(rows)[:, 0], labels).backward()
        optimiser.step()
    metrics = MetricRecord({"num-examples": work.ROWS})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg on given cohorts that notes when each round starts and ends."""

    def __init__(self, cohorts):
        super().__init__(
            fraction_train=cohorts.shape[1] / work.CLIENTS,
            fraction_evaluate=0.0,
            min_train_nodes=cohorts.shape[1],
            min_available_nodes=work.CLIENTS,
        )
        self.cohorts = cohorts
        self.marks: list[float] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages of a round, each with one client of the cohort."""
        self.marks.append(time.perf_counter())
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message, client in zip(messages, self.cohorts[server_round - 1].tolist(), strict=True):
            message.content = RecordDict({"arrays": arrays, "config": ConfigRecord({"client": client})})
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]):
        """The average, as Flower takes it."""
        replies = list(replies)
        failed = [reply.error for reply in replies if reply.has_error()]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(replies)} clients failed in round {server_round}: {failed[0]}")
        result = super().aggregate_train(server_round, replies)
        self.marks.append(time.perf_counter())
        return result


def main() -> None:
    """Measures."""
    args = line.parse_arguments(__doc__, repeats=0)
    size = work.COHORT[args.work]
    strategy = TimedFedAvg(work.cohorts(size, args.rounds))
    client_app, server_app, final = ClientApp(), ServerApp(), {}
    client_app.train()(train)

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord(torch_net.make_net().state_dict())
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=args.rounds)
        final["params"] = torch_net.layers(result.arrays.to_torch_state_dict().values())

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": CORES, "include_dashboard": False},
    }
    start = time.perf_counter()
    with work.peak_memory(children=True) as peak:
        run_simulation(
            server_app=server_app, client_app=client_app, num_supernodes=work.CLIENTS, backend_config=backend
        )
        memory = peak()
    begins, ends = strategy.marks[::2], strategy.marks[1::2]
    rates = [size / (end - begin) for begin, end in zip(begins, ends, strict=True)][1:]
    found = work.versions("flwr", "ray", "torch", "numpy")
    score = work.accuracy(final["params"], work.make_data())
    line.print_line(line.Line("flower", args.work, args.rounds, rates, ends[0] - start, score, memory, found))


if __name__ == "__main__":
    main()
