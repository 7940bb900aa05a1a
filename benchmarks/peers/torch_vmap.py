"""The work in PyTorch's transforms: `vmap(grad(loss))` over all clients of a round; two threads."""

from __future__ import annotations

import torch  # pyright: ignore[reportMissingImports]
from torch.func import grad, vmap  # pyright: ignore[reportMissingImports]
from torch.nn.functional import binary_cross_entropy_with_logits  # pyright: ignore[reportMissingImports]

from benchmarks import work
from benchmarks.peers import line, torch_net


def loss(params: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean logistic loss.

    Args:
      params: weight f32[in, out] and bias f32[out] of each layer in turn.
      x: f32[16, 16].
      y: f32[16].
    """
    for weight, bias in zip(params[:-2:2], params[1:-2:2], strict=True):
        x = (x @ weight + bias).relu()
    return binary_cross_entropy_with_logits((x @ params[-2] + params[-1])[:, 0], y)


def main() -> None:
    """Measures."""
    args = line.parse_arguments(__doc__, threads=2)
    torch.set_num_threads(args.threads)
    size = work.COHORT[args.work]
    cohorts = torch.from_numpy(work.cohorts(size, args.rounds)).long()
    x, y = torch_net.records()
    gradient = vmap(grad(loss))

    def run() -> work.Layers:
        generator = torch.Generator().manual_seed(0)
        start = [torch.from_numpy(array) for layer in work.init_params() for array in layer]
        for cohort in cohorts:
            order = torch.argsort(torch.rand(size, work.ROWS, generator=generator), 1)
            rows = torch.gather(x[cohort], 1, order[:, :, None].expand(-1, -1, work.FEATURES))
            labels = torch.gather(y[cohort], 1, order)
            params = [p.expand(size, *p.shape).contiguous() for p in start]
            for batch in zip(rows.split(work.BATCH, 1), labels.split(work.BATCH, 1), strict=True):
                step = gradient(params, *batch)
                params = [p - work.RATE * g for p, g in zip(params, step, strict=True)]
            start = [p.mean(0) for p in params]
        arrays = [p.numpy() for p in start]
        return list(zip(arrays[::2], arrays[1::2], strict=True))

    line.print_line(line.measure("torch-vmap", args, run, work.versions("torch", "numpy")))


if __name__ == "__main__":
    main()
