"""What the federated stack needs of a model; every function sees one client's batch and is pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedjax_health.models.dense import make_dot_general
from fedjax_health.models.record import Ops
from fedjax_health.threefry import root_key
from fedjax_health.types import Array, Batch, Hyper, Metrics, Params, Update


class ModelParams(NamedTuple):
    """All of a model's state, by who trains it.

    Attributes:
      client: what clients train and upload; the update has this structure.
      server: what only the server changes (a split GAN's generator and its optimiser), or ().
    """

    client: Params
    server: Params


class Ballot(NamedTuple):
    """How teachers vote on generated records, for a model whose clients train teachers (see `federated.votes`).

    Attributes:
      teachers: k, each with parameters of the structure of params.client.
      records: n, voted on in a round.
      draw: (params, hyper, key) -> (generated records f32[n, D], label i32[n]); reads no data.
      vote: (teacher, x f32[n, D], label i32[n]) -> bool[n], whether it calls each record real.
      study: (params, x, label, verdict bool[n]) -> (descent direction over params.client, the student; metrics); it sees
        generated records and noisy majorities alone.
    """

    teachers: int
    records: int
    draw: Callable[[ModelParams, Hyper, Array], tuple[Array, Array]]
    vote: Callable[[Params, Array, Array], Array]
    study: Callable[[ModelParams, Array, Array, Array], tuple[Update, Metrics]]


class GenerativeModel(NamedTuple):
    """A conditional generator of records in model space.

    Attributes:
      init: key -> ModelParams.
      field: (params, batch, hyper, key) -> (descent direction over params.client, metrics); a masked mean over the batch.
        A direction and not a loss, so that a VAE (a gradient) and a GAN (two players) train through one stack.
      refine: (params, hyper, key) -> (params, metrics); server-side, reads no data; identity where there is none.
      release: params -> the part that is published and sampled from (decoder, generator).
      sample: (released, label i32[n], key) -> f32[n, D] in model space; bits and one-hot blocks are 0 or 1.
      score: (params, x f32[n, D], label i32[n], key) -> f32[n], higher = more likely a member (white-box attacker).
      record_loss: (params.client, batch, hyper, key, Ops) -> f32[B], of which `field` is the gradient's masked mean; None where
        the direction is not one loss that reads each record once (then records are clipped one by one).
      ballot: where clients train teachers that vote, and params.client is a student that they never touch; else None.
    """

    init: Callable[[Array], ModelParams]
    field: Callable[[ModelParams, Batch, Hyper, Array], tuple[Update, Metrics]]
    refine: Callable[[ModelParams, Hyper, Array], tuple[ModelParams, Metrics]]
    release: Callable[[ModelParams], Params]
    sample: Callable[[Params, Array, Array], Array]
    score: Callable[[ModelParams, Array, Array, Array], Array]
    record_loss: Callable[[Params, Batch, Hyper, Array, Ops], Array] | None = None
    ballot: Ballot | None = None


class Classifier(NamedTuple):
    """A classifier; the first four functions are those of `GenerativeModel`.

    Attributes:
      predict: (released, x f32[n, D]) -> f32[n, L], log-probabilities of the label classes.
      record_loss: as in `GenerativeModel`.
    """

    init: Callable[[Array], ModelParams]
    field: Callable[[ModelParams, Batch, Hyper, Array], tuple[Update, Metrics]]
    refine: Callable[[ModelParams, Hyper, Array], tuple[ModelParams, Metrics]]
    release: Callable[[ModelParams], Params]
    predict: Callable[[Params, Array], Array]
    record_loss: Callable[[Params, Batch, Hyper, Array, Ops], Array] | None = None


class OneShot(NamedTuple):
    """A generator that is statistics of the clients, and not trained.

    Attributes:
      shapes: structure of what is released, a tree of ShapeDtypeStructs.
      sample: as in `GenerativeModel`.
      score: (released, x f32[n, D], label i32[n], key) -> f32[n], as in `GenerativeModel`; all that is known is released.
    """

    shapes: Params
    sample: Callable[[Params, Array, Array], Array]
    score: Callable[[Params, Array, Array, Array], Array]


Generative: TypeAlias = GenerativeModel | OneShot  # what rows are drawn from
# what federated training takes: both have init, field, refine and release
Trainable: TypeAlias = GenerativeModel | Classifier


def ballot_of(model: Trainable) -> Ballot | None:
    """How the model's teachers vote, None for a model without teachers."""
    return model.ballot if isinstance(model, GenerativeModel) else None


def no_refine(params: ModelParams, hyper: Hyper, key: Array) -> tuple[ModelParams, Metrics]:
    """The identity, for models with nothing to do on the server."""
    del hyper, key
    return params, {}


class Affine(nn.Module):
    """A dense layer with the parameters of `flax.linen.Dense` and a product of one's own.

    Attributes:
      features: output size.
      affine: (x, kernel, bias) -> output.
    """

    features: int
    affine: Callable[[Array, Array, Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[n, in] -> f32[n, features]."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        return self.affine(x, kernel, self.param("bias", nn.initializers.zeros, (self.features,)))


class Mlp(nn.Module):
    """Dense layers with a smooth activation between them; no batch statistics (they would mix clients' records).

    Attributes:
      hidden: sizes of the hidden layers.
      out: output size.
      dense: form of the layers' products: "auto", "outer" or "dot" (see `models.dense`).
      affine: what a layer does instead (see `models.record`), or None.
    """

    hidden: tuple[int, ...]
    out: int
    dense: str = "auto"
    affine: Callable[[Array, Array, Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[n, in] -> f32[n, out]."""
        product = make_dot_general(self.dense)
        for i, width in enumerate((*self.hidden, self.out)):
            layer = (
                Affine(width, self.affine, name=f"Dense_{i}") if self.affine else nn.Dense(width, dot_general=product)
            )
            x = layer(nn.leaky_relu(x, 0.2) if i else x)
        return x


def apply(module: nn.Module, params: Params, x: Array) -> Array:
    """The module's output for parameters from its `init`; flax types it as one of several forms."""
    return cast(Array, module.apply(params, x))


def conditioned(x: Array, label: Array, num_classes: int) -> Array:
    """Appends the one-hot label: f32[n, D], i32[n] -> f32[n, D + L]."""
    return jnp.concatenate([x, jax.nn.one_hot(label, num_classes, dtype=jnp.float32)], -1)


def masked_mean(value: Array, mask: Array) -> Array:
    """Mean of f32[B] over the slots where mask bool[B] holds; 0 where none does."""
    return jnp.sum(jnp.where(mask, value, 0.0)) / jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)


def abstract_params(init: Callable[[Array], ModelParams]) -> Any:
    """Shapes of a model's parameters without making them."""
    return jax.eval_shape(init, root_key(0))
