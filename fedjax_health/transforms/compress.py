"""Compression by config: what an update goes through on its way up, and the model on its way down."""

from __future__ import annotations

import math
from collections.abc import Callable

from fedjax_health import tree
from fedjax_health.federation_config import CompressionConfig
from fedjax_health.transforms.base import UpdateTransform, Wire, chain, full_wire
from fedjax_health.transforms.coder import FLOAT, Coder, make_coded
from fedjax_health.transforms.error_feedback import make_error_feedback
from fedjax_health.transforms.quantize import quantize_coder, quantize_tree, quantized_wire
from fedjax_health.transforms.rotate import make_rotate, padded_size
from fedjax_health.transforms.sign import SIGN
from fedjax_health.transforms.sparsify import kept_count, make_rand_k, make_top_k
from fedjax_health.types import Array, Params, Update, UserError


def _coder(config: CompressionConfig) -> Coder:
    if config.sign and config.bits:
        raise UserError(
            f"compression sign=True with bits={config.bits}: a sign is one bit already; set one of them to 0"
        )
    if config.sign:
        return SIGN
    return quantize_coder(config.bits) if config.bits else FLOAT


def _check_feedback(config: CompressionConfig, size: int) -> None:
    """Refuses error feedback around nothing, or around a quantiser that may lose more than it is given.

    The error of k values at L = 2^bits - 1 steps is at most (m/L)^2 k, and max|u|^2 = m^2 <= ||u||^2 or, rotated,
    m^2 <= 2 ln(2n/p) ||u||^2 / n but for a chance p = 1e-6. Below ||u||^2 for every u means L^2 > k, or L^2 > 2 ln(2n/p).
    """
    if config.sparsify == "none" and not config.sign and not config.bits:
        raise UserError(
            "compression error_feedback=True with nothing lossy: set sparsify, sign or bits, or turn it off"
        )
    if not config.bits:
        return
    n = padded_size(size) if config.rotate else size
    values = n if config.sparsify == "none" else kept_count(config.keep_fraction, n)
    limit = min(values, 2.0 * math.log(2.0 * n / 1e-6)) if config.rotate else values
    if (2**config.bits - 1) ** 2 <= limit:
        least = math.floor(math.log2(math.sqrt(limit) + 1.0)) + 1
        raise UserError(
            f"compression bits={config.bits} with error_feedback on {values} values: the error may grow from round to "
            f"round; give at least {least} bits, {'or sign=True' if config.rotate else 'or rotate=True or sign=True'}"
        )


def make_compression(config: CompressionConfig, template: Update) -> UpdateTransform:
    """The client's compressors in the order of the config: rotate, sparsify, then bits or sign for the values that are left.

    With everything off it is the identity at no cost. Error feedback, where asked for, is around them all. The server
    decodes every client's update before it sums; rotated updates (then f32[n], n a power of two) are turned back once,
    after the sum. Everything lossy leaves no known bound on the norm (l2_bound None), so the clip of a private run stands
    AFTER compression: chain(compression, clip, noise), where the server clips what it decoded. A rotation keeps the bound.

    Args:
      config: the section `compression`.
      template: tree of the update's shapes (arrays or ShapeDtypeStructs), f32.

    Returns:
      A chain whose memory is () or, with error feedback, a tree of the update's shapes.

    Raises:
      UserError: sign with bits; an unknown sparsify; a number out of range; error feedback without anything lossy or
        around too few bits for the error to shrink.
    """
    coder = _coder(config)
    parts: list[UpdateTransform] = [make_rotate(template)] if config.rotate else []
    if config.sparsify == "top_k":
        parts.append(make_top_k(config.keep_fraction, coder))
    elif config.sparsify == "rand_k":
        parts.append(make_rand_k(config.keep_fraction, not config.error_feedback, coder))
    elif config.sparsify != "none":
        raise UserError(f"sparsify={config.sparsify!r} in compression: choose none, top_k or rand_k")
    elif coder is not FLOAT:
        parts.append(make_coded(coder))
    if not config.error_feedback:
        return chain(*parts)
    _check_feedback(config, tree.size(template))
    return make_error_feedback(chain(*parts))


def make_download(config: CompressionConfig) -> Callable[[Params, Array], Params]:
    """(params, typed key of the server) -> the params that clients of the round receive; identity for down_bits = 0.

    One quantised broadcast is the same for all clients of a round: call it once a round, not once a client.

    Raises:
      UserError: down_bits outside 0 to 16.
    """
    bits = config.down_bits
    if not bits:
        return lambda params, key: params
    quantize_coder(bits)
    return lambda params, key: quantize_tree(params, bits, key)


def download_wire(config: CompressionConfig, params: Params) -> Wire:
    """Wire of the broadcast model: 32 bits a value, or down_bits and one float32 scale.

    Args:
      config: the section `compression`.
      params: tree of the model's shapes (arrays or ShapeDtypeStructs).
    """
    plain = full_wire(params)
    return quantized_wire(config.down_bits, plain) if config.down_bits else plain
