"""The work in FedJAX (Ro et al. 2021, arXiv:2108.02117): `fed_avg` with its jit backend, the fastest of its three."""

# the checker takes `fedjax` for this file
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import fedjax
import jax
import jax.numpy as jnp
from fedjax.algorithms import fed_avg  # pyright: ignore[reportMissingImports]

from benchmarks import work
from benchmarks.peers import line


def loss(params, x, y):
    """Mean logistic loss.

    Args:
      params: layers.
      x: f32[16, 16].
      y: f32[16].
    """
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = params[-1]
    logit = (x @ weight + bias)[:, 0]
    return jnp.mean(jax.nn.softplus(logit) - logit * y)


def main() -> None:
    """Measures."""
    fedjax.set_for_each_client_backend("jit")
    args = line.parse_arguments(__doc__)
    data, cohorts = work.make_data(), work.cohorts(work.COHORT[args.work], args.rounds)
    clients = fedjax.InMemoryFederatedData({k: {"x": data.x[k], "y": data.y[k]} for k in range(work.CLIENTS)})
    algorithm = fed_avg.federated_averaging(
        lambda params, batch, key: jax.grad(loss)(params, batch["x"], batch["y"]),
        client_optimizer=fedjax.optimizers.sgd(work.RATE),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(batch_size=work.BATCH, num_epochs=1),
    )

    def run() -> work.Layers:
        state = algorithm.init(jax.tree_util.tree_map(jnp.asarray, work.init_params()))
        for number, cohort in enumerate(cohorts):
            keys = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(0), number), len(cohort))
            members = clients.get_clients(cohort.tolist())
            state, _ = algorithm.apply(
                state, [(name, rows, key) for (name, rows), key in zip(members, keys, strict=True)]
            )
        return jax.device_get(state.params)

    line.print_line(line.measure("fedjax", args, run, work.versions("fedjax", "jax", "numpy")))


if __name__ == "__main__":
    main()
