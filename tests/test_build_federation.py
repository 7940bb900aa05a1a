"""From a config to the parts of a federation: what is refused, with one sentence, and what a part is told."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from fedjax_health import build_federation, tree
from fedjax_health.data.population import stored_population
from fedjax_health.federated.federation import init_state
from fedjax_health.transforms.base import Keys, full_wire
from fedjax_health.types import UserError

pytestmark = pytest.mark.quick_compile


def make(population=None, **settings):
    names = ("private", "devices", "fleet")
    options = {name: settings.pop(name) for name in names if name in settings}
    return toy.make_parts(toy.linear(), toy.train_config(**settings), population=population, **options)


def refused(sentence, **settings):
    with pytest.raises(UserError, match=sentence) as error:
        make(**settings)
    assert "\n" not in str(error.value)


def test_an_unknown_mechanism_is_not_taken_for_none(monkeypatch):
    def misspelt(*args):
        return build_federation.build_federation(*args[:-3], "central_gausian")

    monkeypatch.setattr(toy, "build_federation", misspelt)
    refused("mechanism='central_gausian' is not one of central_gaussian, ")


def test_sizes_that_do_not_fit():
    refused(rf"batch_size=7 is larger than any client \(the largest holds {toy.H} records\)", batch_size=7)
    refused(r"cohort=25 is larger than the 24 training clients", cohort=25)
    refused(
        r"concurrency=9 and cohort=8 needs 26 clients to choose from; there are 24", algorithm="fedbuff",
        concurrency=9, cohort=8, private=False,
    )  # fmt: skip
    assert make(cohort=24, batch_size=toy.H).population.size == 24
    assert make(algorithm="fedbuff", concurrency=8, cohort=8, private=False).sampler.size == 24


def test_more_to_remember_than_fits():
    crowd = stored_population(500_000_000, toy.H)
    refused(r"500000000 clients remember between rounds would take .* GiB", population=crowd, algorithm="scaffold")
    feedback = {"sparsify": "top_k", "error_feedback": True}
    refused(r"error_feedback off", population=crowd, compression=feedback)
    forgetful = make(population=crowd)  # nobody remembers anything: any number of clients
    state = jax.eval_shape(lambda: init_state(forgetful, toy.keys(0)[0]))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state)) < 1000


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"aggregation": {"rule": "median"}}, "a robust rule or an attack"),
        ({"aggregation": {"attack": "sign_flip", "attackers": 0.2}}, "a robust rule or an attack"),
        ({"sampler": "fixed"}, "sampler='fixed' has no accountant"),
        ({"fleet": toy.devices_config(over_commitment=1.5)}, "over_commitment=1"),
        ({"fleet": toy.devices_config(availability="markov")}, "set over_commitment=1 and a deadline"),
        ({"fleet": toy.devices_config(availability="diurnal", over_commitment=1.5)}, "not accounted for"),
    ],
)
def test_privacy_that_no_accountant_covers(settings, sentence):
    """The parts are asked themselves, so that a mistake in the config's own rules does not get through."""
    refused(sentence, private=True, **settings)
    make(private=False, **settings)


def test_private_devices_with_a_timetable_are_covered():
    fleet = toy.devices_config(availability="markov", deadline_seconds=60.0, failures_per_hour=1.0)
    assert make(private=True, fleet=fleet).devices.data_independent


def test_noise_only_in_a_private_federation():
    message, hyper, keys = {"w": jnp.ones((3,))}, toy.hyper(None), toy.keys(0, 1)
    for private in (True, False):
        transform = make(private=private).transform
        out, metrics = transform.server(message, hyper, Keys(keys[0], keys[1]))
        assert ("public/noise_std" in metrics) == private
        assert np.array_equal(out["w"], message["w"]) != private
        assert transform.l2_bound(None, hyper) == 0.5


def test_an_infinite_clip_norm_costs_nothing_and_bounds_nothing():
    transform = make(private=False, l2_clip_norm=math.inf).transform
    assert transform.l2_bound(None, toy.hyper(None)) is None


@pytest.mark.parametrize("private", [True, False])
def test_a_private_sum_is_divided_by_the_public_cohort(private):
    parts = make(private=private, cohort=8)
    acc = parts.aggregator.init({"w": jnp.zeros((2,))}, 4)
    _, denominator = parts.aggregator.total(acc, toy.keys(0)[0])
    assert float(denominator) == (8.0 if private else 1.0)


def test_over_commitment_asks_more():
    fleet = toy.devices_config(over_commitment=1.5)
    assert make(private=False, sampler="fixed", fleet=fleet).sampler.expected == 12.0
    assert make(private=False, sampler="fixed", cohort=20, fleet=fleet).sampler.expected == 24.0  # all there are
    assert make(private=True).sampler.expected == 8.0


@pytest.mark.parametrize(("clients_per_chunk", "devices"), [(1, 1), (5, 2), (100, 4), (0, 1), (0, 4)])
def test_slots_are_whole_chunks_on_every_device(clients_per_chunk, devices):
    for sampler in ("poisson", "fixed", "full"):
        parts = make(private=False, sampler=sampler, clients_per_chunk=clients_per_chunk, devices=devices)
        assert parts.sampler.slots % (parts.clients_per_chunk * devices) == 0
        assert parts.clients_per_chunk <= -(-parts.sampler.slots // devices)
        if clients_per_chunk:
            assert parts.clients_per_chunk <= clients_per_chunk
        else:
            assert 1 <= parts.clients_per_chunk <= build_federation.CPU_CHUNK


def test_costs_are_those_of_the_messages():
    """Bytes by hand: softmax regression has D x 2 + 2 numbers; SCAFFOLD sends and gets as many again."""
    d = 2 * toy.encoder().layout.dim + 2
    plain, twice = make().costs, make(algorithm="scaffold").costs
    assert (plain.bytes_up, plain.bytes_down, plain.model_bytes) == (4 * d, 4 * d, 4 * d)
    assert (twice.bytes_up, twice.bytes_down, twice.model_bytes) == (8 * d, 8 * d, 4 * d)
    half = make(compression={"down_bits": 8}).costs
    assert half.bytes_up == 4 * d and d <= half.bytes_down < 2 * d
    assert 3 * 4 * d < plain.memory_bytes < twice.memory_bytes
    epochs = make(local="epochs", local_epochs=3, batch_size=4)
    np.testing.assert_array_equal(epochs.costs.steps(jnp.arange(7)), 3 * np.array([0, 1, 1, 1, 1, 2, 2]))
    np.testing.assert_array_equal(make(local_steps=5).costs.steps(jnp.arange(3)), [5, 5, 5])
    dim = toy.encoder().layout.dim
    products = 2 * 2 * 3 * dim * 2  # forward and weight gradient, B = 3, two classes
    assert products <= plain.flops_per_step <= 3 * products


def test_the_message_is_what_is_counted():
    message = tree.zeros_like(toy.linear().init(toy.keys(0)[0]).client)
    assert full_wire(message).bits == 8 * make().costs.bytes_up
