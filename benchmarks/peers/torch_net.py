"""The network and the records of the work in PyTorch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks import work


def make_net() -> nn.Sequential:
    """Network with the initial parameters: f32[batch, 16] -> logit f32[batch, 1]."""
    first, second, last = (nn.Linear(*shape) for shape in itertools.pairwise(work.LAYERS))
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
    with torch.no_grad():
        for layer, (weight, bias) in zip((first, second, last), work.init_params(), strict=True):
            layer.weight.copy_(torch.from_numpy(weight.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias))
    return net


def layers(params: Iterable[torch.Tensor]) -> work.Layers:
    """Layers as `work.accuracy` takes them.

    Args:
      params: weight f32[out, in] and bias f32[out] of each layer in turn.
    """
    arrays = [np.asarray(p.detach()) for p in params]
    return [(weight.T, bias) for weight, bias in zip(arrays[::2], arrays[1::2], strict=True)]


@functools.cache
def records() -> tuple[torch.Tensor, torch.Tensor]:
    """All clients' records, made once in a process: f32[1000, 64, 16], f32[1000, 64]."""
    data = work.make_data()
    return torch.from_numpy(data.x), torch.from_numpy(data.y)
