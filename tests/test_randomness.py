"""The secret of a run: made once, for its owner, found again, agreed on, refused when it is lost, and gone at the end."""

from __future__ import annotations

import json
import os
import stat

import jax
import numpy as np
import pytest

from fedjax_health import randomness as chance
from fedjax_health import rng, secret
from fedjax_health.chacha import CHACHA20
from fedjax_health.train.stage import federation_keys
from fedjax_health.types import UserError

STAGES = ["toy/vae", "toy/gan"]


def opened(path):
    return chance.open_randomness("system", str(path), STAGES)


def words(keys):
    return np.asarray(jax.random.key_data(keys))


def refused(path, *parts):
    with pytest.raises(UserError) as error:
        opened(path)
    assert "\n" not in str(error.value) and all(part in str(error.value) for part in parts), str(error.value)


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path):
    old = os.umask(0)
    try:
        first = opened(tmp_path)
    finally:
        os.umask(old)
    file = tmp_path / secret.FILE_NAME
    assert (
        stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE((tmp_path / "checkpoints").stat().st_mode) == 0o700
    )
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", secret.FILE_NAME]  # no copy
    np.testing.assert_array_equal(opened(tmp_path).secret, first.secret)
    assert first.secret is not None and first.secret.shape == (8,) and first.secret.dtype == np.uint32
    (tmp_path / "other").mkdir()
    assert not np.array_equal(opened(tmp_path / "other").secret, first.secret)
    with pytest.raises(FileExistsError):
        secret.make_secret(str(file))


def test_the_secret_is_what_the_system_gave(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "urandom", lambda n: asked.append(n) or bytes(range(n)))
    found = opened(tmp_path).secret
    assert asked == [32] and found is not None and found.astype("<u4").tobytes() == bytes(range(32))


def test_a_secret_that_cannot_be_written_leaves_no_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        opened(tmp_path)
    assert not (tmp_path / secret.FILE_NAME).exists()


@pytest.mark.parametrize(
    "left", ["checkpoints/toy_vae/0/state", "synthetic/toy_vae.csv", "privacy_ledger.json", "metrics.jsonl"]
)
def test_a_lost_secret_is_refused_where_something_was_trained(tmp_path, left):
    opened(tmp_path)
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("1")
    opened(tmp_path)  # while it is there
    (tmp_path / secret.FILE_NAME).unlink()
    refused(tmp_path, secret.FILE_NAME, left.split("/")[0], "second release", "new workdir")
    assert not (tmp_path / secret.FILE_NAME).exists()


def test_what_holds_nothing_is_no_sign_of_a_training(tmp_path):
    opened(tmp_path)
    (tmp_path / secret.FILE_NAME).unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    assert opened(tmp_path).secret is not None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_may_have_read_is_refused(tmp_path, mode):
    opened(tmp_path)
    (tmp_path / secret.FILE_NAME).chmod(mode)
    refused(tmp_path, f"mode {mode:04o}", "chmod 600", "new workdir")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"secret": 3}', '{"secret": "00ff"}', '{"secret": "xy"}', json.dumps({"secret": "00" * 32})],
)
def test_a_damaged_secret_is_refused(tmp_path, text):
    opened(tmp_path)
    (tmp_path / secret.FILE_NAME).write_text(text)
    refused(tmp_path, "does not hold the 256 bits", "new workdir")


def ended(path):
    """A run whose trainings are done."""
    made = opened(path)
    shares = {"toy": np.random.default_rng(0).random((2, 3)).astype(np.float32)}
    chance.keep_shares(made, str(path), shares)
    for stage in ("toy_vae", "toy_gan"):
        (path / "checkpoints" / stage).mkdir()
        (path / "checkpoints" / stage / "end.json").write_text('{"rounds": 4, "done": true}')
    return made, shares["toy"]


def test_at_the_end_the_secret_is_gone_and_the_run_can_still_be_shown_again(tmp_path):
    made, shares = ended(tmp_path)
    assert not opened(tmp_path).ended  # as long as it is there
    chance.end_randomness(made, str(tmp_path))
    assert not (tmp_path / secret.FILE_NAME).exists()
    again = opened(tmp_path)
    assert again.ended and again.secret is not None and not again.secret.any()
    np.testing.assert_array_equal(chance.kept_shares(again, "toy", (2, 3)), shares)
    keys = chance.training_keys(again, 0, "toy/vae", 2)
    assert keys.shape == (2,) and not words(keys).any()
    chance.end_randomness(again, str(tmp_path))  # nothing is left to remove
    chance.keep_shares(again, str(tmp_path), {})
    assert opened(tmp_path).shares
    for domain, shape in (("other", (2, 3)), ("toy", (2, 4)), ("toy", (3, 3))):
        with pytest.raises(UserError, match="class shares, whose noise is gone"):
            chance.kept_shares(again, domain, shape)


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("class_shares.json", "{", "class shares"),
        ("class_shares.json", '{"toy": "x"}', "class shares"),
        ("class_shares.json", None, "is gone"),
        ("toy_gan/end.json", '{"rounds": 4, "done": false}', "is gone"),
        ("toy_gan/end.json", None, "is gone"),
        ("toy_gan/end.json", "[]", "where the stage ended"),
    ],
)
def test_an_end_that_is_not_whole_is_refused(tmp_path, file, text, sentence):
    made, _ = ended(tmp_path)
    chance.end_randomness(made, str(tmp_path))
    if text is None:
        (tmp_path / "checkpoints" / file).unlink()
    else:
        (tmp_path / "checkpoints" / file).write_text(text)
    refused(tmp_path, sentence, "new workdir")


def test_the_file_is_overwritten_before_it_is_removed(tmp_path, monkeypatch):
    opened(tmp_path)
    file, seen = tmp_path / secret.FILE_NAME, []
    monkeypatch.setattr(secret.os, "unlink", lambda path: seen.append(file.read_bytes()))
    before = file.read_bytes()
    secret.remove_secret(str(file))
    assert seen == [b"0" * len(before)]


def test_by_seed_nothing_is_written_and_the_keys_are_as_they_were(tmp_path):
    made = chance.open_randomness("seed", str(tmp_path), STAGES)
    assert made == chance.agree(made, "seed") == chance.BY_SEED
    chance.keep_shares(made, str(tmp_path), {"toy": np.zeros((1, 2), np.float32)})
    chance.end_randomness(made, str(tmp_path))
    assert os.listdir(tmp_path) == []
    np.testing.assert_array_equal(
        words(chance.training_keys(made, 3, "toy/vae", 2)), words(federation_keys(rng.named_seed(3, "toy/vae"), 2))
    )
    host = rng.host_rng(3, rng.Stream.CLASS_PRIOR, "toy", "1").standard_normal(4)
    np.testing.assert_array_equal(chance.share_normals(made, 3, "toy", 1).standard_normal(4), host)


def test_every_part_of_a_run_has_a_key_of_its_own(tmp_path):
    made = opened(tmp_path)
    assert made.secret is not None
    keys = {stage: chance.training_keys(made, 0, stage, 3) for stage in ("toy/vae", "toy/gan", "toy2/vae")}
    assert all(key.dtype == jax.random.key(0, impl=CHACHA20).dtype for key in keys.values())
    share = [chance.share_normals(made, 0, domain, s) for domain in ("toy", "toy2") for s in (0, 1)]
    every = np.concatenate(
        [*map(words, keys.values()), *(words(normals.key)[None] for normals in share), made.secret[None]]
    )
    assert len(np.unique(every.ravel())) == every.size
    # neither the seed nor the number of federations moves them
    np.testing.assert_array_equal(words(keys["toy/vae"])[:1], words(chance.training_keys(made, 9, "toy/vae", 1)))
    numbers = [normals.standard_normal(500) for normals in share]
    assert numbers[0].dtype == np.float64 and len(np.unique(np.concatenate(numbers))) > 1990
    np.testing.assert_array_equal(numbers[0], share[0].standard_normal(500))
    pair = [words(chance.named_key(chance.key_of(made.secret), *names)) for names in (("a", "b"), ("ab",), ("b", "a"))]
    assert len(np.unique(pair, axis=0)) == 3


def test_processes_agree(tmp_path):
    made, _ = ended(tmp_path)
    same = chance.agree(made, "system")
    np.testing.assert_array_equal(same.secret, made.secret)
    assert not same.ended
    chance.end_randomness(made, str(tmp_path))
    again = chance.agree(opened(tmp_path), "system")
    assert again.ended and set(again.shares) == {"toy"}
