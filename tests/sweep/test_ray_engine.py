"""What the Ray engine does around Ray, with a Ray of one's own making; `test_ray` has the real one."""

from __future__ import annotations

import pathlib
import sys
import types

import pytest

from fedjax_health.sweep.engines import ray as engine
from fedjax_health.sweep.pieces import Piece, result_path
from fedjax_health.types import UserError

PIECES = [Piece(f"piece{i}", "configs/iot.py:smoke", ((("seed", i),),)) for i in range(3)]


class TaskError(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, cause):
        self.cause = cause


class RayError(Exception):
    """As Ray says that a worker died."""


def fake(results, address="127.0.0.1", hosts=({"CPU": 4.0},)):
    """A Ray whose tasks have ended already, with a result or an exception."""

    def get(future):
        if isinstance(results[future], Exception):
            raise results[future]
        return results[future]

    ray = types.ModuleType("ray")
    parts = {
        "wait": lambda futures, num_returns: (futures[:num_returns], futures[num_returns:]),
        "get": get,
        "nodes": lambda: [{"Alive": True, "Resources": dict(host)} for host in hosts],
        "exceptions": types.SimpleNamespace(RayTaskError=TaskError, RayError=RayError),
        "util": types.SimpleNamespace(get_node_ip_address=lambda: address),
    }
    for name, value in parts.items():
        setattr(ray, name, value)
    return ray


@pytest.fixture
def installed(monkeypatch):
    """Puts a Ray in the place of the real one, and takes back what the engine says to it."""

    def put(ray):
        monkeypatch.setenv(engine.CLUSTERS, "1")
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
        monkeypatch.setitem(sys.modules, "ray", ray)
        for name in ("exceptions", "util"):
            monkeypatch.setitem(sys.modules, f"ray.{name}", getattr(ray, name, None))

    return put


def test_without_ray_it_is_one_sentence_and_finished_pieces_need_none(tmp_path, installed):
    installed(None)
    with pytest.raises(UserError, match="--engine=local"):
        engine.make_ray()(PIECES, str(tmp_path))
    for piece in PIECES:
        path = pathlib.Path(result_path(piece, str(tmp_path)))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"done")
    engine.make_ray()(PIECES, str(tmp_path))


def test_a_ray_that_would_listen_to_others_is_not_started(installed):
    installed(fake({}, address="10.1.2.3"))
    with pytest.raises(UserError, match=r"would listen on 10[.]1[.]2[.]3"):
        engine._installed(alone=True)
    assert engine._installed(alone=False) is sys.modules["ray"]  # a cluster that somebody else has started
    installed(fake({}))
    assert engine._installed(alone=True) is sys.modules["ray"]


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [(TaskError(UserError("lower cohort")), "lower cohort"), (RayError(), "ended every worker that tried it")],
)
def test_one_piece_that_fails_does_not_stop_the_others(tmp_path, failure, sentence):
    ray = fake({"a": b"one", "b": failure, "c": b"three"})
    with pytest.raises(UserError, match=sentence):
        engine._gather(ray, dict(zip("abc", PIECES, strict=True)), str(tmp_path))
    found = {path.name: path.read_bytes() for path in (tmp_path / "pieces").iterdir()}
    assert found == {"piece0.parquet": b"one", "piece2.parquet": b"three"}


def test_what_is_no_users_mistake_keeps_its_traceback(tmp_path):
    with pytest.raises(TaskError):
        engine._gather(fake({"a": TaskError(KeyError("x"))}), {"a": PIECES[0]}, str(tmp_path))


@pytest.mark.parametrize(
    ("hosts", "asked", "share"),
    [
        (({"CPU": 4.0},), 0, (4, 0)),
        (({"CPU": 8.0}, {"CPU": 2.0}), 0, (2, 0)),
        (({"CPU": 8.0},), 3, (3, 0)),
        (({"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}), 0, (4, 1)),
    ],
)
def test_a_worker_has_a_host_or_a_device_of_its_own(hosts, asked, share):
    assert engine._share(fake({}, hosts=hosts), asked) == share
    with pytest.raises(UserError, match="more than any host"):
        engine._share(fake({}, hosts=hosts), 65)
