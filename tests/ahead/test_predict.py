"""Shapes without data are those of the data; a prediction's memory and loops; what does not fit is refused with its number."""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import iot, table
from fedjax_health import build, config, prepare
from fedjax_health.ahead import predict, words
from fedjax_health.ahead.peaks import PEAKS
from fedjax_health.ahead.shapes import Assumed, shape_domain
from fedjax_health.ahead.trips import expected_trips
from fedjax_health.federated import distributed, sharding
from fedjax_health.federated.federation import Data
from fedjax_health.randomness import BY_SEED, training_keys
from fedjax_health.train.loop import make_hyper, make_train
from fedjax_health.types import UserError
from launch import compile as command

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.quick_compile


@functools.cache
def small(**changes):
    raw = iot.get_config("smoke")
    raw.data.domains, raw.models, raw.data.num_clients, raw.seeds = ("vitals",), ("vae",), 60, 2
    raw.vae.hidden, raw.vae.train.rounds, raw.vae.train.rounds_per_chunk, raw.vae.train.cohort = (8,), 4, 2, 20
    raw.vae.train.batch_size = raw.classifier.train.batch_size = 8
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        setattr(raw[section] if section else raw, name, value)
    return config.from_config_dict(raw)


def test_shapes_without_records_are_those_of_the_records():
    own = small()
    found, domain = shape_domain("vitals", own, Assumed()), build.build_domain("vitals", own)
    assert (found.domain.population.size, found.domain.population.max_count) == (60, domain.population.max_count)
    assert found.domain.population.min_count == domain.population.min_count
    np.testing.assert_array_equal(found.counts, np.bincount(domain.train.client))
    assert jax.eval_shape(lambda: domain.data) == found.domain.data
    procedural = shape_domain("vitals", small(data__population="procedural"), Assumed())
    assert procedural.domain.data.shape == () and "first 60" in procedural.how


def test_assumed_sizes_are_split_as_files_would_be():
    raw = table.get_config()
    raw.data.schema, raw.data.domains = "", ("physionet2019",)
    own = config.from_config_dict(raw)
    found = shape_domain("physionet2019", own, Assumed(1000, 20, 100))
    assert found.domain.population.size == 1000 - 100 - 200 and found.domain.population.max_count == 100
    np.testing.assert_allclose(found.counts.mean(), 20, rtol=0.05)
    assert found.domain.data.x.shape == (found.counts.sum(), found.domain.encoder.layout.dim)
    for assumed, sentence in [
        (Assumed(), "--clients=N"),
        (Assumed(5, 0), "describe no data"),
        (Assumed(3, 9), "give more"),
    ]:
        with pytest.raises(UserError, match=sentence):
            shape_domain("physionet2019", own, assumed)
    with pytest.raises(UserError, match="is simulated"):
        shape_domain("vitals", small(), Assumed(10, 10))


def test_every_source_has_a_schema_without_its_files():
    assert set(build.SCHEMAS) == set(build.SOURCES)


@pytest.fixture(scope="module")
def prediction():
    ((shaped, (found,)),) = predict.predict(small())
    return shaped, found


@pytest.mark.long
def test_the_program_is_the_runs_own():
    own = small(privacy__mechanism="none", data__representation="copula")
    (real,), _ = prepare.load(own)
    shaped, parts = shape_domain("vitals", own, Assumed()), real.parts["vae"]
    traced, _ = predict.trace("vitals/vae", parts, own, shaped)
    train = make_train(parts, own.vae.train, not real.fitted)
    keys = training_keys(BY_SEED, own.seed, "vitals/vae", own.seeds)
    hyper = {**make_hyper(build.training_numbers(own.vae), own.seeds), "class_prior": jnp.asarray(real.shares)}
    placed = distributed.replicate((keys, hyper, Data(real.data, jnp.asarray(real.include))), parts.mesh)
    lowered = train.run_chunk.lower(train.init(placed[0]), *placed[1:])
    assert lowered.as_text() == traced.lower().as_text()


def test_memory_and_work_of_a_prediction(prediction):
    shaped, found = prediction
    records = shaped.domain.data
    assert found.memory.data == predict.tree_bytes(records) + 2 * 60
    assert found.memory.machine(4) < 4 * found.memory.total and found.memory.rest > 0
    # a client's steps at least, and never twice all of its work
    step = build.model_config("vae", small()).train.local_steps * 2 * found.trips.live * found.rounds
    parts = prepare.with_federations(shaped.domain, np.ones((2, 60), bool), small(), sharding.make_mesh()).parts["vae"]
    assert step * parts.costs.flops_per_step < found.flops < 6 * step * parts.costs.flops_per_step
    least, started = found.seconds(PEAKS["h100"])
    assert 0 < least < started == found.device_kernels * PEAKS["h100"].kernel_seconds


def test_cohorts_drawn_on_the_host(prediction):
    shaped, _ = prediction
    parts = prepare.with_federations(shaped.domain, np.ones((2, 60), bool), small(), sharding.make_mesh()).parts["vae"]
    everybody = expected_trips(parts, shaped.counts, 1, 1.0)
    np.testing.assert_allclose(everybody.live, 20, rtol=0.1)
    assert expected_trips(parts, shaped.counts, 1, 0.5).live < 0.7 * everybody.live
    assert expected_trips(parts, shaped.counts, 3, 1.0).chunks >= everybody.chunks


def test_what_cannot_fit_is_refused_with_its_number(prediction):
    _, found = prediction
    predict.check_memory([found], found.memory.total, host=False)
    with pytest.raises(UserError, match=r"'vitals/vae' needs .* GB and --memory is .*clients_per_chunk"):
        predict.check_memory([found], found.memory.total - 1, host=False)
    large = found._replace(memory=found.memory._replace(data=10**12))
    with pytest.raises(UserError, match=r"1e\+03 GB .*are records"):
        predict.check_memory([found, large], 1e9, host=True)


@pytest.mark.parametrize(("text", "value"), [("16GB", 16e9), ("800 mb", 8e8), ("2GiB", 2.0**31), ("7", 7.0)])
def test_amounts_of_memory(text, value):
    assert words.amount(text) == value
    for wrong in ("", "much", "-1GB", "0GB", text + "x"):
        with pytest.raises(UserError, match="no amount"):
            words.amount(wrong)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_bad_options_are_one_sentence(monkeypatch):
    for options, sentence in [
        (["--memory=lots"], "no amount"),
        (["--config.data.num_client=3"], "did you mean 'num_clients'"),
        (["--config.seeds=x"], "must be int"),
        (["--memry=3"], "did you mean --memory"),
        (["--clients=y"], "must be a whole number"),
        (["--device=abc"], "unknown device 'abc'"),
        (["rest"], "unexpected argument"),
    ]:
        err, argv = io.StringIO(), ["compile", f"--config={ROOT}/configs/iot.py", *options]
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks for keys of the config
        with contextlib.redirect_stderr(err):
            assert command.main(argv) == 2
        assert sentence in err.getvalue() and err.getvalue().count("\n") == 1
