"""The work in pfl-research (Granqvist et al. 2024, arXiv:2404.06430): FedAvg on its simulated backend, one process."""

from __future__ import annotations

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from pfl.aggregate.simulate import SimulatedBackend  # pyright: ignore[reportMissingImports]
from pfl.aggregate.weighting import WeightByDatapoints  # pyright: ignore[reportMissingImports]
from pfl.algorithm.base import NNAlgorithmParams  # pyright: ignore[reportMissingImports]
from pfl.algorithm.federated_averaging import FederatedAveraging  # pyright: ignore[reportMissingImports]
from pfl.data.dataset import Dataset  # pyright: ignore[reportMissingImports]
from pfl.data.federated_dataset import FederatedDataset  # pyright: ignore[reportMissingImports]
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams  # pyright: ignore[reportMissingImports]
from pfl.model.pytorch import PyTorchModel  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks import work
from benchmarks.peers import line, torch_net


class Net(nn.Module):
    """The network with the `loss` and `metrics` that pfl asks of a model."""

    def __init__(self):
        super().__init__()
        self.net = torch_net.make_net()
        self.criterion = nn.BCEWithLogitsLoss()

    def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:
        """Mean logistic loss of x f32[16, 16], y f32[16]; pfl says with `eval` that no training follows."""
        self.train(not eval)
        return self.criterion(self.net(x)[:, 0], y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> dict:
        """No metrics: the work has none during training, and pfl calls this all the same."""
        return {}


def main() -> None:
    """Measures."""
    args = line.parse_arguments(__doc__, repeats=1, threads=1)
    torch.set_num_threads(args.threads)
    size = work.COHORT[args.work]
    data, cohorts = work.make_data(), work.cohorts(size, args.rounds)
    rng = np.random.default_rng(0)

    def client(number: int) -> Dataset:
        # pfl goes through a client's records in their order, so that the shuffle is made here
        order = rng.permutation(work.ROWS)
        return Dataset([data.x[number][order], data.y[number][order]], user_id=str(number))

    def run() -> work.Layers:
        net = Net()
        members = iter(cohorts.reshape(-1).tolist())
        clients = FederatedDataset(client, lambda: next(members))
        FederatedAveraging().run(
            algorithm_params=NNAlgorithmParams(
                central_num_iterations=args.rounds,
                evaluation_frequency=10**6,
                train_cohort_size=size,
                val_cohort_size=0,
            ),
            backend=SimulatedBackend(training_data=clients, val_data=clients, postprocessors=[WeightByDatapoints()]),
            model=PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), 1.0)),
            model_train_params=NNTrainHyperParams(
                local_num_epochs=1, local_learning_rate=work.RATE, local_batch_size=work.BATCH
            ),
            model_eval_params=NNEvalHyperParams(local_batch_size=None),
            callbacks=[],
            send_metrics_to_platform=False,
        )
        return torch_net.layers(net.parameters())

    line.print_line(line.measure("pfl", args, run, work.versions("pfl", "torch", "numpy")))


if __name__ == "__main__":
    main()
