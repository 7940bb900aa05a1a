"""Work B in Opacus: gradients of single records by hooks, or norms first and a second backward pass ("ghost"); two threads."""

from __future__ import annotations

import warnings

import opacus  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks import work, work_b
from benchmarks.work_b import BATCH, EPOCHS, FEATURES, HIDDEN, LATENT, RATE


def network(into: int, out: int) -> nn.Sequential:
    """A perceptron with two hidden layers.

    Args:
      into, out: sizes of its ends.
    """
    return nn.Sequential(
        nn.Linear(into, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, out)
    )


class Vae(nn.Module):
    """Loss of each row, f32[B]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = network(FEATURES, 2 * LATENT), network(LATENT, FEATURES)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Negative evidence bound.

        Args:
          x: f32[B, 16].
          noise: f32[B, 8], standard normal.
        """
        mean, log_var = self.encoder(x).chunk(2, -1)
        out = self.decoder(mean + torch.exp(0.5 * log_var) * noise)
        kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)
        return 0.5 * ((out - x) ** 2).sum(-1) + kl


class Mean(nn.Module):
    """A criterion in the form that ghost clipping asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.reduction = "mean"

    def forward(self, losses: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The losses, reduced as asked; `target` is not used.

        Args:
          losses: f32[B].
          target: anything.
        """
        return losses.mean() if self.reduction == "mean" else losses


def main() -> None:
    """Measures."""
    args = work_b.parse_arguments(__doc__, ("hooks", "ghost"))
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    x = torch.from_numpy(work_b.make_rows())
    model, criterion = Vae(), Mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x), batch_size=BATCH, shuffle=True, drop_last=True
    )
    made = opacus.PrivacyEngine(accountant="rdp").make_private(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=work_b.NOISE,
        max_grad_norm=work_b.CLIP,
        poisson_sampling=False,
        grad_sample_mode=args.mode,
        **({"criterion": criterion} if args.mode == "ghost" else {}),
    )
    model, optimizer = made[0], made[1]
    criterion = made[2] if args.mode == "ghost" else criterion

    def run() -> None:
        for _ in range(EPOCHS):
            order = torch.randperm(len(x))
            for start in range(0, len(x), BATCH):
                optimizer.zero_grad()
                rows = x[order[start : start + BATCH]]
                losses = model(rows, torch.randn(BATCH, LATENT))
                criterion(losses, torch.zeros(BATCH)).backward()
                optimizer.step()

    work_b.print_rates(work_b.measure(run, args.repeats), work.versions("torch", "opacus"))


if __name__ == "__main__":
    main()
