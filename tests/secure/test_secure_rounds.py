"""Secure aggregation in a run: masked is ideal bit for bit, a void round leaves no trace, the noise fits the grid."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from test_checks import convert
from test_checks import train as changed

from fedjax_health import build, build_secure, tree
from fedjax_health.data.population import stored_population
from fedjax_health.federated.canaries import with_canaries
from fedjax_health.federated.federation import init_state
from fedjax_health.federated.round import make_round, work_of
from fedjax_health.secure.protocol import STAGES, run_round
from fedjax_health.secure.protocol_client import Setup, make_identity
from fedjax_health.secure.ring import encoded_l2_bound, ring_step
from fedjax_health.threefry import root_key
from fedjax_health.transforms.base import Keys
from fedjax_health.transforms.ring import CLIP_SLACK, rounding_bound
from fedjax_health.types import UserError

EVERYONE = {"sampler": "full", "cohort": 24}
LOSING = toy.devices_config(failures_per_hour=900.0)  # about a seventh breaks off
DEGREE, N, ROUNDS = 8, 4, 3
PARAMS = 2 * toy.encoder().layout.dim + 2


def make(secure, private=False, fleet=None, model=None, devices=1, population=None, aggregation=None, **train):
    section = {"secure": secure, "secure_degree": DEGREE, **(aggregation or {})}
    config = toy.train_config(**{**EVERYONE, **train}, aggregation=section)
    return toy.make_parts(
        model or toy.linear(), config, private=private, devices=devices, fleet=fleet, population=population
    )


def states(parts, rounds=ROUNDS, n=N, **numbers):
    """All states of N federations from the first on, leading axes [N, rounds + 1], and the metrics [N, rounds]."""
    data, round_fn = toy.make_data(parts), make_round(parts)

    def one(key, hyper):
        first = init_state(parts, key)

        def step(state, _):
            state, metrics = round_fn(state, hyper, data._replace(include=data.include[0]))
            return state, (state, metrics)

        later, metrics = jax.lax.scan(step, first, None, length=rounds)[1]
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later), metrics

    found, metrics = jax.jit(jax.vmap(one))(toy.keys(*range(n)), toy.hyper(n, **numbers))
    return found._replace(key=()), jax.device_get(metrics)


def exact_rounds(secure, devices, chunk):
    """Rounds whose clients send random numbers that no arithmetic has rounded: compilers differ in the last bit of it."""
    parts = make(secure, fleet=LOSING, devices=devices, clients_per_chunk=chunk)

    def run_client(start, data, client, hyper, key):
        flat, unravel = jax.flatten_util.ravel_pytree(start.params.client)
        bits = jax.random.bits(key, flat.shape) >> 8
        return unravel((bits.astype(jnp.float32) - 2.0**23) * 2.0**-28), start.slot, {"sim/loss": jnp.float32(0.0)}

    return states(parts._replace(run_client=run_client))


def test_masked_is_ideal_bit_for_bit_through_drop_outs_on_any_devices_and_chunks():
    ideal, metrics = exact_rounds("ideal", 1, 4)
    lost, aborted = metrics["sim/secure_dropped"], metrics["public/secure_aborted"]
    assert (lost > 0).mean() > 0.5 and 0 < aborted.sum() < aborted.size / 2
    np.testing.assert_array_equal(lost, metrics["sim/failed"])
    np.testing.assert_array_equal(aborted > 0, metrics["sim/secure_least_quorum"] < DEGREE // 2 + 1)
    assert (metrics["sim/saturated"] == 0).all()
    # chunks of five leave slots empty, on two devices other ones
    for secure, devices, chunk in (("masked", 1, 4), ("masked", 2, 5), ("ideal", 1, 5)):
        other, theirs = exact_rounds(secure, devices, chunk)
        jax.tree.map(np.testing.assert_array_equal, ideal, other)
        for name in ("public/secure_aborted", "sim/secure_least_quorum", "public/update_norm", "sim/cohort"):
            np.testing.assert_array_equal(metrics[name], theirs[name])


@pytest.mark.parametrize("secure", ["ideal", "masked"])
def test_a_round_without_a_quorum_leaves_nothing_but_the_time(secure):
    """SCAFFOLD under Adam: parameters, moments, average, control and the clients' memory all move, else."""
    found, metrics = states(make(secure, fleet=LOSING, algorithm="scaffold", server_optimizer="adam"))
    aborted = metrics["public/secure_aborted"] > 0
    assert aborted.any()
    for name in ("params", "server", "average", "control", "memory"):
        leaves = [np.asarray(leaf).reshape(N, ROUNDS + 1, -1) for leaf in jax.tree.leaves(getattr(found, name))]
        moved = (np.diff(np.concatenate(leaves, 2), axis=1) != 0).any(2)
        np.testing.assert_array_equal(moved, ~aborted)
    np.testing.assert_array_equal(found.round, np.broadcast_to(np.arange(ROUNDS + 1), (N, ROUNDS + 1)))
    assert (metrics["sim/round_seconds"] > 0).all() and (metrics["public/parameter_norm"] > 0).all()
    np.testing.assert_array_equal(metrics["public/update_norm"] > 0, ~aborted)


def test_nobody_masks_with_too_few():
    """Eight neighbours need nine clients: with eight the round is void though all of them answer, and no noise is told."""
    parts = make("ideal", private=True, aggregation={"secure_degree": 8})
    data, round_fn, state = toy.make_data(parts), jax.jit(make_round(parts)), init_state(parts, toy.keys(0)[0])
    for clients in (8, 9):
        include = jnp.arange(24) < clients
        after, metrics = round_fn(state, toy.hyper(None), data._replace(include=include))
        void = clients == 8
        assert float(metrics["public/secure_aborted"]) == void and float(metrics["sim/cohort"]) == clients
        assert (float(metrics["public/noise_std"]) == 0) == void
        moved = tree.subtract(after.params.client, state.params.client)
        assert (float(tree.global_norm(moved)) == 0) == void


@pytest.mark.parametrize("bits", [8, 16])
def test_the_ideal_mean_is_the_float_mean_but_for_rounding(bits):
    plain, _ = states(make("none"), rounds=1)
    ideal, _ = states(make("ideal", aggregation={"secure_bits": bits}), rounds=1)
    off = toy.flat(ideal.params.client)[:, PARAMS:] - toy.flat(plain.params.client)[:, PARAMS:]
    step = ring_step(0.5, 24, bits)
    # each of 24 clients is off by less than a step, independently of the others: far less in the mean
    assert 0 < np.abs(off).max() < step + 1e-6
    assert np.sqrt(np.mean(off**2)) < 0.5 * step / math.sqrt(24) * 1.3


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bits", [4, 16])
def test_one_client_more_moves_the_decoded_sum_by_at_most_the_bound(bits, rotate):
    parts = make("ideal", aggregation={"secure_bits": bits}, compression={"rotate": rotate})
    transform, hyper, shared = parts.transform, toy.hyper(None), toy.keys(3)[0]
    like = tree.zeros_like(toy.linear().init(toy.keys(0)[0]).client)
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    step = ring_step(0.5, 24, bits)

    def decode(total):
        return jax.lax.bitcast_convert_type(total, jnp.int32).astype(jnp.float32) * step

    def moved(scale, key):
        random = scale * jax.random.normal(key, (25, flat.size))
        own = jax.random.split(jax.random.fold_in(key, 1), 25)
        q = jax.vmap(lambda u, k: transform.client(unravel(u), transform.memory(like), hyper, Keys(k, shared))[0])(
            random, own
        )
        without = jnp.sum(q[:24], 0, dtype=jnp.uint32)
        return jnp.linalg.norm(decode(without + q[24]) - decode(without))

    scale = jnp.asarray([0.0, 1e-3, 0.05, 1.0, 1e20, jnp.nan], jnp.float32)
    keys = jax.vmap(root_key)(jnp.arange(50, dtype=jnp.uint32))
    found = np.asarray(jax.jit(jax.vmap(jax.vmap(moved, (0, None)), (None, 0)))(scale, keys))
    bound = float(transform.l2_bound(None, hyper))
    assert found.max() <= bound
    assert found[:, 3].max() > 0.5 * (1.0 + (0.001 if bits == 4 else 0.0))  # more than the clip alone allows
    assert (found[:, [0, 5]] == 0).all()  # nothing, and not a number, send nothing


def test_the_bound_where_float32_holds_no_longer_every_sum():
    assert rounding_bound(100, 1.0, 256, 16) == encoded_l2_bound(0.0, 100, ring_step(1.0, 256, 16))
    assert rounding_bound(100, 1.0, 2000, 16) == pytest.approx(30 * ring_step(1.0, 2000, 16))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bits", [4, 16])
def test_the_noise_is_that_of_what_is_encoded(bits, rotate):
    parts = make("masked", private=True, aggregation={"secure_bits": bits}, compression={"rotate": rotate})
    d = 1 << (PARAMS - 1).bit_length() if rotate else PARAMS
    expected = encoded_l2_bound(0.5 * (1 + CLIP_SLACK), d, ring_step(0.5, 24, bits))
    hyper, nothing = toy.hyper(None, noise_multiplier=2.0), jnp.zeros(d, jnp.uint32)
    bound = float(parts.transform.l2_bound(None, hyper))
    assert expected <= bound <= expected * (1 + 1e-6)
    keys = jax.vmap(root_key)(jnp.arange(400, dtype=jnp.uint32))
    noise, metrics = jax.jit(jax.vmap(lambda k: parts.transform.server(nothing, hyper, Keys(k, keys[0]))))(keys)
    np.testing.assert_allclose(metrics["public/noise_std"], 2.0 * bound, rtol=1e-6)
    spread = toy.flat(noise).std()
    assert abs(spread / (2.0 * bound) - 1) < 5 / math.sqrt(2 * 400 * PARAMS)
    train = toy.train_config(**EVERYONE, aggregation={"secure": "masked", "secure_degree": DEGREE})
    assert build_secure.seen_by_server(train, parts) == (bound, 6)
    assert build_secure.seen_by_server(toy.train_config(), make("none", private=True)) == (0.5, 1)


def test_bytes_are_those_that_the_protocol_sends():
    n, degree, d = 7, 4, 11
    identities = {client: make_identity(client) for client in range(n)}
    registry = {client: identity.verifying_key() for client, identity in identities.items()}
    graph = build_secure.Graph(degree, degree // 2 + 1)
    sent = run_round(Setup(1, *graph, d, registry), identities, dict(enumerate(np.zeros((n, d), np.uint32))))
    up, down = build_secure.protocol_bytes(d, graph, n)
    assert set(sent.bytes_up.values()) == {4 * d + up} and set(sent.bytes_down.values()) == {down}
    plain, secure = make("none").costs, make("masked").costs
    up, down = build_secure.protocol_bytes(PARAMS, build_secure.Graph(DEGREE, 5), 24)
    assert (secure.bytes_up, secure.bytes_down) == (plain.bytes_up + up, plain.bytes_down + down)
    assert make("ideal").costs.bytes_up == secure.bytes_up


def test_the_protocol_takes_its_time_on_the_devices():
    """On the wearable k = 8 neighbours are 0.9 s of curves, and four more exchanges wait for its latency of 0.1 s."""
    assert len(STAGES) == build_secure.CALLS
    fleet = toy.devices_config(shares=(1.0, 0.0, 0.0, 0.0))
    rounds = [states(make(secure, fleet=fleet), rounds=1, n=1)[1] for secure in ("none", "ideal")]
    parts = make("ideal", fleet=fleet)
    assert parts.costs.operations / 32e6 == pytest.approx(400 * (8 * 2.87e-4 + PARAMS * 2.2e-8))
    work = work_of(parts, toy.make_data(parts), jnp.arange(3))
    assert float(work.calls) == 5 and float(work.flops[0]) > parts.costs.operations
    plain, secure = (float(metrics["sim/round_seconds"][0, 0]) for metrics in rounds)
    assert secure > plain + 4 * 0.1 + 0.3 * parts.costs.operations / 32e6


def test_the_graph_is_that_of_the_cohort_unless_told():
    for secure_degree, degree in ((0, 10), (6, 6)):
        train = toy.train_config(**EVERYONE, aggregation={"secure": "ideal", "secure_degree": secure_degree})
        graph = build_secure.ring_graph(train.aggregation, make("none").sampler)
        assert graph == (degree, degree // 2 + 1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"private": True, "fleet": LOSING}, "whether a round is void shows who took part"),
        ({"private": True, "fleet": toy.devices_config(deadline_seconds=60.0)}, "deadline_seconds=0"),
        ({"private": True, "sampler": "poisson", "cohort": 12}, "leaves a round void with chance"),
        ({"aggregation": {"secure_degree": 24}}, "a ring graph of degree 24 over 24 clients"),
        ({"algorithm": "fednova"}, "one with plain sums of a round"),
        ({"hierarchy": {"institutions": 2}}, "does not go with aggregation.secure='masked'"),
        (
            {"population": stored_population(3000, toy.H), "cohort": 3000, "aggregation": {"secure_bits": 24}},
            "the sum could wrap modulo 2",
        ),
    ],
)
def test_what_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        make("masked", **settings)
    assert "\n" not in str(error.value)


def test_more_updates_than_fit_are_masked_by_nobody(monkeypatch):
    monkeypatch.setattr(build_secure, "MOST_ROWS_BYTES", 2 * 4 * 24 * PARAMS)
    make("masked")
    monkeypatch.setattr(build_secure, "MOST_ROWS_BYTES", 2 * 4 * 24 * PARAMS - 1)
    make("ideal")
    with pytest.raises(UserError, match="use secure='ideal', whose sums are the same"):
        make("masked")


def test_canaries_are_refused_by_the_parts():
    with pytest.raises(UserError, match=r"use aggregation\.secure='ideal'"):
        with_canaries(make("masked", private=True), 10, toy.keys(0)[0])


def test_who_joins_is_counted_without_the_audit_and_devices_without_memory():
    """Of 24 clients a fifth (5) is left out; a GiB fits on a gateway only."""
    config = convert({"devices.shares": (0.5, 0.2, 0.2, 0.1)})
    parts = make("ideal", private=True)
    assert build.who_can_join(parts, config) == (19, pytest.approx(1.0))
    large = parts._replace(costs=parts.costs._replace(memory_bytes=float(2**30)))
    assert build.who_can_join(large, config) == (19, pytest.approx(0.1))
    graph = build_secure.Graph(18, 10)
    build_secure.check_private_secure(parts, graph, 20)  # one less, and there are still more than the neighbours
    with pytest.raises(UserError, match=r"with a mean cohort of 19 leaves a round void with chance 1\.0e\+00"):
        build_secure.check_private_secure(parts, graph, 19)
    build_secure.check_private_secure(parts, build_secure.Graph(2, 2), 24, 0.9)
    with pytest.raises(UserError, match="mean cohort of 12"):
        build_secure.check_private_secure(parts, build_secure.Graph(2, 2), 24, 0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "mime_lite"},
        {"clip_quantile": 0.5, "private": True},
        {"model": "vae", "sampler": "fixed"},
        {"compression": {"rotate": True, "down_bits": 8}, "algorithm": "scaffold", "private": True},
    ],
)
def test_every_algorithm_of_plain_sums_can_be_aggregated(settings):
    model = build.build_model("vae", toy.domain(), convert(changed())) if settings.pop("model", "") else None
    parts = make("masked", model=model, **settings)
    data = jax.eval_shape(lambda: toy.make_data(parts))
    one = data._replace(include=jax.ShapeDtypeStruct((24,), bool))
    state = jax.eval_shape(lambda: init_state(parts, toy.keys(0)[0]))
    after, metrics = jax.eval_shape(make_round(parts), state, toy.hyper(None), one)
    assert jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, after)
    assert "public/secure_aborted" in metrics
