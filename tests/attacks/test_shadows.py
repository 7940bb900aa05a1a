"""Shadows are dealt over devices without changing any: masks are coins, results those of one alone, whatever their number."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.attacks.shadows import draw_masks, make_shadow_mesh, over_shadows
from fedjax_health.types import UserError


def test_targets_are_in_by_fair_coins_and_everybody_else_always():
    targets = np.arange(0, 400, 2)
    masks = draw_masks(targets, 400, 50, np.random.default_rng(0))
    assert masks.shape == (50, 400) and masks[:, 1::2].all()
    coins = masks[:, targets]
    assert abs(coins.mean() - 0.5) < 0.02  # four deviations of 10,000 coins
    assert abs(np.corrcoef(coins[:, :-1].ravel(), coins[:, 1:].ravel())[0, 1]) < 0.04
    assert len({tuple(row) for row in coins}) == 50
    with pytest.raises(UserError, match="3 shadow federations cannot attack each other; give at least 4"):
        draw_masks(targets, 400, 3, np.random.default_rng(0))


@pytest.mark.parametrize(("shadows", "devices", "batch"), [(8, 4, 1), (7, 4, 1), (6, 1, 4), (9, 2, 2), (1, 4, 1)])
def test_each_result_is_that_of_one_alone(shadows, devices, batch):
    traces = 0

    def one(own, common):
        nonlocal traces
        traces += 1
        steps = jax.lax.fori_loop(0, own["n"], lambda _, x: x * 0.5 + common, own["x"])  # of a length of its own
        return {"last": steps, "sum": jnp.sum(steps)}

    own = {"x": jnp.arange(shadows * 3, dtype=jnp.float32).reshape(-1, 3), "n": jnp.arange(shadows, dtype=jnp.int32)}
    common = jnp.array([1.0, 2.0, 3.0], jnp.float32)
    run = jax.jit(over_shadows(one, make_shadow_mesh(devices), batch))
    found = run(own, common)
    run(jax.tree.map(lambda leaf: leaf + leaf, own), common)
    assert traces <= 2 and run._cache_size() == 1  # lax.map looks at the remainder of a batch as well
    for s in range(shadows):
        alone = one(jax.tree.map(lambda leaf, s=s: leaf[s], own), common)
        for name in alone:
            np.testing.assert_allclose(found[name][s], alone[name], rtol=1e-6)
