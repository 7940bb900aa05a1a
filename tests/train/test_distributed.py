"""Several processes on the loopback interface: they equal one, and a lost one ends the others with a sentence.

Run as a script, the file is one of the processes: PORT NUMBER ID DEVICES WORKDIR RULE SECONDS_A_CHUNK.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_health.federated import distributed
from fedjax_health.train.metrics import HEAD
from fedjax_health.types import UserError

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = "import os, runpy; os.sched_getaffinity = lambda _: {0}; runpy.run_module('launch.main', run_name='__main__')"
SECRET_KEY = np.random.default_rng(0).integers(0, 2**32, (1, 8), np.uint32)
LOST = "start all processes again with the same workdir: the run goes on from the last checkpoint"


def process(*command: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(number, devices, path, rule="fixed_point", seconds=0.0):
    port = free_port()
    arguments = [[port, number, i, devices, path, rule, seconds] for i in range(number)]
    return [process(__file__, *map(str, line)) for line in arguments]


def ended(processes, timeout=120):
    """(exit code, standard error) of each; whatever happens, none is left behind."""
    try:
        errors = [p.communicate(timeout=timeout)[1] for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    return [(p.returncode, error) for p, error in zip(processes, errors, strict=True)]


def trained(number, devices, path, rule="fixed_point", seconds=0.0):
    """Final state, leaf by leaf, and metrics by (round, name)."""
    for code, error in ended(started(number, devices, path, rule, seconds)):
        assert code == 0, error[-3000:]
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(1, 25))
    metrics = {(line["round"], name): value for line in lines for name, value in line.items() if name not in HEAD}
    with np.load(path / "state.npz") as file:
        return dict(file), metrics


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One process with four devices, never interrupted."""
    return trained(1, 4, tmp_path_factory.mktemp("whole"))


def assert_same(run, reference):
    """Integer sums: the same bits on any devices; metrics are means of floats, whose last digits may differ."""
    assert len(reference[0]) > 5 and run[0].keys() == reference[0].keys()
    for name, leaf in reference[0].items():
        np.testing.assert_array_equal(leaf, run[0][name], err_msg=name)
    assert len(reference[1]) > 100 and run[1].keys() == reference[1].keys()
    for name, value in reference[1].items():
        assert run[1][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_two_processes_equal_one_bit_for_bit(tmp_path, whole):
    assert_same(trained(2, 2, tmp_path), whole)
    norms = [whole[1][i, "public/update_norm"] for i in (1, 12, 24)]
    assert min(norms) > 1e-3 and len(set(norms)) == 3  # something was trained


@pytest.mark.long
def test_a_sum_of_floats_differs_by_its_order_only(tmp_path, whole):
    one, _ = trained(1, 4, tmp_path / "one", "mean")
    two, _ = trained(2, 2, tmp_path / "two", "mean")
    for name, leaf in one.items():
        np.testing.assert_allclose(leaf, two[name], rtol=1e-6, atol=1e-6, err_msg=name)
    assert any((leaf != whole[0][name]).any() for name, leaf in one.items())  # the rule makes a difference


@pytest.mark.slow
def test_two_processes_with_a_secret_equal_one_and_keep_it_from_the_disk(tmp_path):
    one = trained(1, 4, tmp_path / "one", "fixed_point, secret")
    assert_same(trained(2, 2, tmp_path / "two", "fixed_point, secret"), one)
    assert_same(trained(2, 2, tmp_path / "two", "fixed_point, secret"), one)  # started again, it is done
    for run in ("one", "two"):
        folder = tmp_path / run / "checkpoints" / "toy_linear"
        assert [p.name for p in folder.iterdir() if p.name.isdigit()] == ["24"] and (folder / "end.json").exists()
        files = [p for p in (tmp_path / run / "checkpoints").rglob("*") if p.is_file()]
        assert files and not [p for p in files if SECRET_KEY.tobytes() in p.read_bytes()]


@pytest.mark.parametrize(("lost", "then"), [(0, (2, 1)), pytest.param(1, (1, 2), marks=pytest.mark.long)])
def test_a_lost_process_ends_the_other_and_a_restart_ends_as_if_nothing_had_happened(tmp_path, whole, lost, then):
    processes = started(2, 1, tmp_path, seconds=0.5)
    began = time.monotonic()
    while not any(c.name.isdecimal() and int(c.name) > 0 for c in (tmp_path / "checkpoints" / "toy_linear").glob("*")):
        assert time.monotonic() - began < 90 and all(p.poll() is None for p in processes)
        time.sleep(0.05)
    processes[lost].kill()
    began = time.monotonic()
    results = ended(processes, timeout=60)
    assert results[lost][0] == -9 and time.monotonic() - began < 60
    code, error = results[1 - lost]
    assert code not in (0, None)
    sentences = [line for line in error.splitlines() if line.startswith("error: ")]
    assert sentences and all(line.endswith(LOST) for line in sentences), error
    if lost == 1:  # process 0 sees the broken connection itself
        assert code == 2 and re.search(r"error: stage 'toy/linear' after round \d+: process 0 could not go on", error)
    assert 0 < (tmp_path / "metrics.jsonl").read_text().count("\n") < 24
    assert_same(trained(*then, tmp_path), whole)


def launched(*flags: tuple[str, ...]):
    port = free_port()
    common = ("--config=configs/iot.py:smoke", f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    return [process("-c", LAUNCH, *common, f"--process_id={i}", *more) for i, more in enumerate(flags)]


def test_another_config_is_one_clear_sentence_in_both(tmp_path):
    path = f"--workdir={tmp_path / 'run'}"
    for code, error in ended(launched((path,), (path, "--config.seed=1"))):
        assert code == 2 and "Traceback" not in error, error
        assert "error: process 1 has another config than process 0; start all processes with the same" in error
    assert not (tmp_path / "run").exists()


def test_half_an_address_is_one_clear_sentence():
    alone = process("-c", LAUNCH, "--config=configs/iot.py:smoke", "--process_id=1")
    ((code, error),) = ended([alone])
    assert code == 2 and error.strip() == (
        "error: several processes need --coordinator, --num_processes and --process_id; give --coordinator and "
        "--num_processes, too"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 2, 0), "give --coordinator, too"),
        (("127.0.0.1", 2, 0), "must be host:port"),
        ((":80", 2, 0), "must be host:port"),
        (("a:0", 2, 0), "must be host:port"),
        (("a:65536", 2, 0), "must be host:port"),
        (("a:1", 0, 0), "--num_processes=0"),
        (("a:1", 2, 2), r"--process_id=2 must lie in \[0, 2\)"),
        (("a:1", 2, -1), "--process_id=-1"),
    ],
)
def test_bad_addresses(arguments, message):
    with pytest.raises(UserError, match=message):
        distributed.check_address(*arguments)


def test_good_addresses():
    for host in ("127.0.0.1", "node-3", "[::1]"):
        distributed.check_address(f"{host}:8476", 2, 1)


def test_one_process_keeps_everything_as_it_is():
    tree = {"a": jnp.ones(3, jnp.float32), "k": jax.random.key(0)}
    assert distributed.is_main()
    spread = distributed.replicate(tree, jax.sharding.Mesh(np.array(jax.devices()), ("clients",)))
    assert all(len(leaf.sharding.device_set) == len(jax.devices()) for leaf in jax.tree.leaves(spread))
    assert distributed.replicate(spread, spread["a"].sharding.mesh)["a"] is spread["a"]
    assert {shard.data.unsafe_buffer_pointer() for shard in spread["a"].addressable_shards} == {
        tree["a"].unsafe_buffer_pointer()
    }
    assert distributed.local(tree) is tree and distributed.from_main(tree) is tree
    distributed.check_same("config", tree)
    with distributed.together(False):
        pass
    with pytest.raises(ValueError, match="own"), distributed.guarded("here"):
        raise ValueError("own")


def test_values_of_process_0_arrive_bit_for_bit_and_differences_are_named(tmp_path):
    for code, error in ended(started(2, 2, tmp_path, rule="values")):
        assert code == 2 and "error: process 1 has another table than process 0" in error, error[-3000:]


@pytest.mark.long
@pytest.mark.slow
def test_the_whole_command(tmp_path):
    small = ("--config.seeds=1", "--config.data.domains=('vitals',)", "--config.models=('vae',)")
    one = process(
        "-c", LAUNCH.replace("{0}", "{0, 1}"), "--config=configs/iot.py:smoke", *small, f"--workdir={tmp_path}/1"
    )
    ((code, error),) = ended([one], 600)
    assert code == 0, error[-3000:]
    two = (*small, f"--workdir={tmp_path}/2")
    for code, error in ended(launched(two, (*small, f"--workdir={tmp_path}/unused")), 600):
        assert code == 0, error[-3000:]
    names = [sorted(str(p.relative_to(tmp_path / k)) for p in (tmp_path / k).glob("*/*.csv")) for k in "12"]
    assert names[0] == names[1] and len(names[0]) > 8
    assert (tmp_path / "2" / "report.html").exists() and not (tmp_path / "unused").exists()
    ours, theirs = ((tmp_path / k / "metrics.jsonl").read_text() for k in "12")
    assert ours == theirs  # of two devices the sum has one order


def values(process_id: int) -> None:
    """What `from_main`, `check_same` and `agree` do, as one of two processes."""
    from fedjax_health import randomness

    mine = {
        "f": np.array([-0.0, np.nan, 1e-42, 3.0], np.float32) if process_id == 0 else np.ones(4, np.float32),
        "d": np.float64(0.1 if process_id == 0 else 7.0),
        "b": np.array([[True, False]]) if process_id == 0 else np.zeros((1, 2), bool),
    }
    got = distributed.from_main(mine)
    assert got["f"].tobytes() == np.array([-0.0, np.nan, 1e-42, 3.0], np.float32).tobytes()
    assert got["d"] == np.float64(0.1) and got["b"].tolist() == [[True, False]]
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("clients",))
    tree = {"k": jax.random.split(jax.random.key(3), 2), "x": np.arange(3, dtype=np.float32)}
    spread = distributed.replicate(tree, mesh)
    assert len(spread["x"].sharding.device_set) == len(spread["k"].sharding.device_set) == 4
    back = distributed.local(spread)
    np.testing.assert_array_equal(jax.random.key_data(back["k"]), jax.random.key_data(tree["k"]))
    np.testing.assert_array_equal(back["x"], tree["x"])
    main = process_id == 0
    words, shares = np.arange(8, dtype=np.uint32), {"toy": np.full((2, 3), np.float32(0.1))}
    running = randomness.agree(randomness.Randomness(words) if main else None, "system")
    np.testing.assert_array_equal(running.secret, words)
    zeros = np.zeros(8, np.uint32)
    ended = randomness.agree(randomness.Randomness(zeros, True, shares) if main else None, "system")
    assert not running.ended and ended.ended
    np.testing.assert_array_equal(randomness.kept_shares(ended, "toy", (2, 3)), shares["toy"])
    distributed.check_same("config", {"a": "text", **tree})
    distributed.check_same("table", {"x": np.float32(process_id)})


def work(path: str, rule: str, seconds: float) -> None:
    """Trains a toy stage to its end, as one process; the first writes its final state beside the metrics."""
    import dataclasses

    import toy

    from fedjax_health.chacha import key_of
    from fedjax_health.train import stage
    from fedjax_health.train.metrics import Writer

    class Slow(Writer):
        def write_rounds(self, *args, **kwargs):
            super().write_rounds(*args, **kwargs)
            time.sleep(seconds)

    stage.SAVE_SECONDS = 0.0
    rule, _, secret = rule.partition(", ")
    config = toy.train_config(rounds=24, cohort=16, clients_per_chunk=4, algorithm="scaffold")
    config = dataclasses.replace(config, aggregation=dataclasses.replace(config.aggregation, rule=rule))
    parts = toy.make_parts(toy.linear(), config, devices=0)
    assert parts.mesh.size == jax.device_count()
    writer = Slow(path) if distributed.is_main() else None
    result = stage.train_stage(
        "toy/linear", parts, config, key_of(SECRET_KEY) if secret else stage.federation_keys(0, 1), toy.hyper(1),
        toy.make_data(parts), np.linspace(0.0, 1.0, 25), np.inf, path, writer, bool(secret),
    )  # fmt: skip
    assert result.rounds == 24
    if writer is not None:
        writer.close()
        plain = result.state._replace(key=jax.random.key_data(result.state.key))
        np.savez(os.path.join(path, "state.npz"), **{str(i): x for i, x in enumerate(jax.tree.leaves(plain))})


if __name__ == "__main__":
    port, number, process_id, devices = map(int, sys.argv[1:5])
    jax.config.update("jax_num_cpu_devices", devices)
    with distributed.together(number > 1):
        if number > 1:
            distributed.connect(f"127.0.0.1:{port}", number, process_id, 60)
        if sys.argv[6] == "values":
            values(process_id)
        else:
            work(sys.argv[5], sys.argv[6], float(sys.argv[7]))
