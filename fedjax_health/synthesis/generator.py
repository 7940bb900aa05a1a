"""A published generator, ready to draw from: any number of rows under any condition, in the memory of a few chunks.

Drawing more rows is post-processing of what a run has published, so it costs no privacy budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import jax
import numpy as np

from fedjax_health import rng
from fedjax_health.build import MODELS, ONE_SHOTS
from fedjax_health.config import DiffusionConfig, GanConfig, MedganConfig, ModelConfig, PateganConfig, VaeConfig
from fedjax_health.data.representation import KNOTS, Fitted, layout_of
from fedjax_health.data.schema import REPRESENTATIONS
from fedjax_health.federated.sharding import make_local_mesh
from fedjax_health.models.base import Generative, OneShot
from fedjax_health.synthesis.condition import Condition, holds, parse_condition
from fedjax_health.synthesis.generator_file import Coder, Denoiser, Network, Nothing, Stored, leaf_paths, read_generator
from fedjax_health.synthesis.sample import Published, decoder_of, make_stream
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Table, UserError

PIECE = 1 << 16  # rows of a piece: a row group of a file
RAREST = 1e-4  # least share of rows that may meet a condition: below it a row costs more than 10,000
_PILOT_ROWS = 1 << 18  # the share is measured on at most so many rows,
_ENOUGH = 100  # or until so many met the condition


class Generator:
    """A generator of one domain's records.

    Attributes:
      domain, model: names, such as "vitals" and "vae".
      schema: columns of its rows.
    """

    def __init__(self, stored: Stored, model: Generative, released: Published):
        """Takes what `load_generator` made; compiles at the first row.

        Args:
          stored: names, schema, class shares.
          model: gives `sample`.
          released: its arrays.
        """
        self.domain, self.model, self.schema = stored.domain, stored.model, stored.schema
        self._released, self._shares = released, stored.shares
        self._draw = make_stream(model, decoder_of(stored.schema, stored.representation), make_local_mesh())

    def stream(self, rows: int, key: Array, where: str = "") -> Iterator[Table]:
        """Rows in pieces: independent draws from p(x, y) of the model, or from p(x, y | where).

        The label is conditioned on, since the model draws it first; what inputs must hold is met by rejection. Both are
        exact. The rows depend on the key, not on the devices, and fewer rows are the beginning of more.

        Args:
          rows: how many, >= 1.
          key: typed key.
          where: condition, see `condition.parse_condition`.

        Returns:
          Iterator over tables of 65,536 rows, the last one of what is left; `client` is a running index within each.

        Raises:
          UserError: rows < 1, a condition that the schema does not know, or one that fewer than 1 in 10,000 rows of the
            asked-for class meet, with the measured share. At the call, not at the first piece.
        """
        if rows < 1:
            raise UserError(f"rows={rows} must be at least 1; give how many to draw")
        condition = parse_condition(where, self.schema)
        shares = self._shares
        if condition.label is not None:
            shares = np.eye(len(shares), dtype=np.float32)[condition.label]
        if condition.ranges:
            self._require_acceptance(condition, shares, key)
        return self._pieces(rows, key, condition, shares)

    def sample(self, rows: int, key: Array, where: str = "") -> Table:
        """The rows of `stream` as one table; arguments and errors as there."""
        pieces = list(self.stream(rows, key, where))
        values, label = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
        return Table(values, label, np.arange(rows, dtype=np.int32))

    def _pieces(self, rows: int, key: Array, condition: Condition, shares: np.ndarray) -> Iterator[Table]:
        left, held = rows, 0
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for values, label in self._draw(self._released, shares, key):
            if condition.ranges:
                kept = holds(condition, values)
                values, label = values[kept], label[kept]
            waiting.append((values, label))
            held += len(label)
            while held >= (count := min(PIECE, left)):
                values, label = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
                yield Table(values[:count], label[:count], np.arange(count, dtype=np.int32))
                waiting, held, left = [(values[count:], label[count:])], held - count, left - count
                if not left:
                    return

    def _require_acceptance(self, condition: Condition, shares: np.ndarray, key: Array) -> None:
        """Measures how often a condition is met, on rows of their own, so that those of the answer are not chosen by it."""
        met = drawn = 0
        for values, _ in self._draw(self._released, shares, rng.stream_key(key, 0, rng.Stream.EVALUATE)):
            met, drawn = met + int(holds(condition, values).sum()), drawn + len(values)
            if met >= _ENOUGH or drawn >= _PILOT_ROWS:
                break
        if met < RAREST * drawn:
            raise UserError(
                f"condition {condition.text!r} is met by {met} of {drawn:,} rows of this generator, a share of "
                f"{met / drawn:.2g}, and needs {RAREST:g}; ask for less, or for a wider range"
            )


def sampling_key(seed: int, domain: str, model: str) -> Array:
    """Typed key of a seed, apart from every key of a run: no seed gives the rows that a run has published.

    Args:
      seed: >= 0.
      domain, model: names.

    Raises:
      UserError: a negative seed.
    """
    if seed < 0:
        raise UserError(f"seed={seed} must not be negative; give 0 or more")
    return root_key(rng.named_seed(seed, domain, model, "sample"))


def load_generator(path: str) -> Generator:
    """Reads a published generator and rebuilds its sampler.

    Args:
      path: its .generator.json file.

    Raises:
      UserError: files that cannot be read (`generator_file.read_generator`), an unknown model, or arrays that are not the
        model's: one too few or too many, of another shape or type, or not finite.
    """
    stored = read_generator(path)
    make = {**MODELS, **ONE_SHOTS}[stored.model]
    if stored.representation not in REPRESENTATIONS:
        raise UserError(
            f"{path}: representation {stored.representation!r} is not one of {', '.join(REPRESENTATIONS)}; restore the file"
        )
    layout = layout_of(stored.schema, stored.representation)
    own = () if isinstance(stored.network, Nothing) else (_section(stored.model, stored.network),)
    model: Generative = make(layout, stored.schema.num_classes, *own)
    wanted = Published(_network_shapes(model), _fitted_shapes(stored, layout.numeric))
    shapes = leaf_paths(wanted)
    arrays = path.removesuffix(".json") + ".npz"
    remedy = "restore both files, or repeat the run's command, which publishes them again"
    for name in shapes | stored.arrays:
        if name not in stored.arrays:
            raise UserError(f"{arrays} lacks the array {name!r} of a {stored.model}; {remedy}")
        if name not in shapes:
            raise UserError(f"{arrays} holds the array {name!r}, which no {stored.model} has; {remedy}")
        array, leaf = stored.arrays[name], shapes[name]
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise UserError(
                f"{arrays}: array {name!r} is {array.dtype}{list(array.shape)}, and {path} asks for "
                f"{leaf.dtype}{list(leaf.shape)}; {remedy}"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{arrays}: array {name!r} is not finite; {remedy}")
    released = jax.tree.unflatten(jax.tree.structure(wanted), [stored.arrays[name] for name in shapes])
    return Generator(stored, model, released)


def _network_shapes(model: Generative) -> Any:
    if isinstance(model, OneShot):
        return model.shapes
    return jax.eval_shape(lambda: model.release(model.init(root_key(0))))


def _fitted_shapes(stored: Stored, numeric: int) -> Any:
    """Shapes of the representation's arrays, for as many cells as the file has."""
    if stored.representation == "public":
        return ()
    edges = stored.arrays.get("fitted/edges", np.zeros((numeric, 2)))
    cells = edges.shape[-1] if edges.ndim == 2 else 2
    classes = stored.schema.num_classes
    sizes = [(numeric, cells)] + [(classes, numeric, width) for width in (cells, numeric, KNOTS)]
    return Fitted(*(jax.ShapeDtypeStruct(size, np.dtype("float32")) for size in sizes))


def _section(model: str, network: Network | Coder | Denoiser) -> ModelConfig:
    """A config section with the given sizes; `sample` reads nothing else of it, so what trains is left empty."""
    train = cast(Any, None)
    if isinstance(network, Denoiser):
        return DiffusionConfig(network.hidden, "dot", network.steps, train)
    if isinstance(network, Coder):
        return VaeConfig(network.hidden, "dot", network.latent, kl_weight=1.0, train=train, decoder=network.decoder)
    if model == "pategan":
        return PateganConfig(network.hidden, "dot", network.latent, 0, 0, "mean", 0, 0, 0.0, train)
    make = MedganConfig if model == "medgan" else GanConfig
    return make(
        network.hidden, "dot", network.latent, "joint", penalty=0.0, generator_steps=0, generator_batch=0,
        generator_learning_rate=0.0, train=train, generator=network.generator,
    )  # fmt: skip
