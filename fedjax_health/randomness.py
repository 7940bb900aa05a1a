"""Where a run's published trainings draw from: the config's seed, or a secret that nobody has once they are done.

With `privacy.randomness="system"` initial models, cohorts, clients' coins and noise, and the noise of the class shares, come
from 256 bits of the operating system by way of ChaCha20. Data, splits, evaluation, synthesis and canaries' directions stay with
the seed. The secret lies in the run's folder until the last training is done, so that an interrupted run goes on with the same
noise, and is removed before anything is published; checkpoints hold no key (see `train.stage`).
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health import rng
from fedjax_health.chacha import KEY_WORDS, key_of
from fedjax_health.federated import distributed
from fedjax_health.files import write_text
from fedjax_health.secret import FILE_NAME, NEW_WORKDIR, make_secret, read_secret, remove_secret
from fedjax_health.threefry import root_key
from fedjax_health.train.checkpoint import has_ended
from fedjax_health.types import Array, Normals, UserError

CHECKPOINTS = "checkpoints"
SHARES = os.path.join(CHECKPOINTS, "class_shares.json")
LEFT_BEHIND = (CHECKPOINTS, "synthetic", "privacy_ledger.json", "metrics.jsonl")  # by a training


class CipherNormals(NamedTuple):
    """Standard normal numbers of a key, for one draw: the same call gives the same numbers.

    Not a numpy Generator, whose bits are no cipher's: who sees some of them can work out the others.

    Attributes:
      key: typed key, of nothing else.
    """

    key: Array

    def standard_normal(self, size: int, /) -> np.ndarray:
        """f64[size], of f32 values."""
        return np.asarray(jax.random.normal(self.key, (size,), jnp.float32), np.float64)


class Randomness(NamedTuple):
    """Where a run draws from.

    Attributes:
      secret: u32[8]; None: everything comes from `config.seed`.
      ended: whether all trainings are done and the secret is gone; it then reads zero and nothing may be drawn.
      shares: what `keep_shares` wrote of a run that has ended; empty in a process that reads no files.
    """

    secret: np.ndarray | None = None
    ended: bool = False
    shares: dict[str, np.ndarray] = {}  # noqa: RUF012 - of an immutable tuple


BY_SEED = Randomness()


def noise_seed(seed: int, trial: int) -> int:
    """Seed of whatever is published: runs of one seed that may both be published must not share their noise, which the
    difference of their releases would show.

    Args:
      seed: of the run, >= 0.
      trial: privacy.trial; 0 gives the seed itself.
    """
    return rng.named_seed(seed, "trial", str(trial)) if trial else seed


def training_keys(randomness: Randomness, seed: int, stage: str, seeds: int) -> Array:
    """Root keys of a training's N federations.

    Args:
      randomness: of the run.
      seed: of the run, >= 0; not used where there is a secret.
      stage: "<domain>/<model>".
      seeds: N.

    Returns:
      Typed keys [N], the first that of the published federation; all zero where the secret is gone.
    """
    if randomness.secret is None:
        return rng.numbered_keys(root_key(rng.named_seed(seed, stage)), seeds)
    if randomness.ended:
        return key_of(np.zeros((seeds, KEY_WORDS), np.uint32))
    return rng.numbered_keys(named_key(key_of(randomness.secret), "training", stage), seeds)


def share_normals(randomness: Randomness, seed: int, domain: str, number: int, *query: str) -> Normals:
    """What draws the noise of a domain's class shares, once, or of another query over its clients, once each.

    Args:
      randomness: of the run, not ended.
      seed: of the run, >= 0; not used where there is a secret.
      domain: whose shares.
      number: of the federation, from 0.
      *query: name of another query; none for the class shares.
    """
    assert not randomness.ended
    if randomness.secret is None:
        return rng.host_rng(seed, rng.Stream.CLASS_PRIOR, domain, str(number), *query)
    return CipherNormals(named_key(key_of(randomness.secret), "class shares", domain, str(number), *query))


def named_key(root: Array, *names: str) -> Array:
    """Key of a named part of a run: the eight words of SHA-256(names) folded into the root, one after the other.

    Args:
      root: typed key.
      *names: path of the part, without NUL; order matters.

    Returns:
      Typed key; two paths share one only where SHA-256 collides.
    """
    for word in np.frombuffer(hashlib.sha256("\0".join(names).encode()).digest(), "<u4"):
        root = jax.random.fold_in(root, jnp.uint32(word))
    return root


def open_randomness(choice: str, path: str, stages: list[str]) -> Randomness:
    """Makes the secret of a new run, or finds that of an interrupted one; for process 0 alone.

    Args:
      choice: privacy.randomness.
      path: the run's folder.
      stages: every training of the run, "<domain>/<model>".

    Raises:
      UserError: something was trained, but the secret is gone; others may read it; or a file is damaged.
    """
    if choice != "system":
        return BY_SEED
    file, checkpoints = os.path.join(path, FILE_NAME), os.path.join(path, CHECKPOINTS)
    if not os.path.lexists(file):
        ends = [has_ended(os.path.join(checkpoints, stage.replace("/", "_"))) for stage in stages]
        if all(ends) and os.path.isfile(os.path.join(path, SHARES)):
            return Randomness(np.zeros(KEY_WORDS, np.uint32), True, _read_shares(path))
        found = [name for name in LEFT_BEHIND if _holds_something(os.path.join(path, name))]
        if found:
            raise UserError(
                f"{file!r} is gone, but {found[0]!r} beside it says that something was trained, and other noise for the same "
                f"rounds would be a second release; put it back as it was, or {NEW_WORKDIR}"
            )
        make_secret(file)
    os.makedirs(checkpoints, exist_ok=True)
    os.chmod(checkpoints, 0o700)  # correlated noise lies in them until a training ends
    return Randomness(read_secret(file))


def agree(randomness: Randomness | None, choice: str) -> Randomness:
    """The randomness of process 0 in every process; all must call it. It travels as updates do, in the clear.

    Args:
      randomness: of process 0; None in the others.
      choice: privacy.randomness, the same in all.
    """
    if choice != "system":
        return BY_SEED
    mine = randomness or BY_SEED
    secret = np.zeros(KEY_WORDS, np.uint32) if mine.secret is None else mine.secret
    secret, ended = distributed.from_main((secret, np.bool_(mine.ended)))
    return Randomness(secret, bool(ended), mine.shares)


def end_randomness(randomness: Randomness, path: str) -> None:
    """Removes the secret, once every training is done.

    Args:
      randomness: of the run; without a secret, or where it is gone, there is nothing to do.
      path: the run's folder.
    """
    if randomness.secret is not None and not randomness.ended:
        remove_secret(os.path.join(path, FILE_NAME))


def keep_shares(randomness: Randomness, path: str, shares: dict[str, np.ndarray]) -> None:
    """Writes class shares and representations, noise included, for a run that is started again when the secret is gone.

    Args:
      randomness: of the run; nothing is written without a secret, or where it is gone.
      path: the run's folder.
      shares: domain -> f32[N, L], and "<domain>/<array>" of a representation -> f32[N, ...].
    """
    if randomness.secret is not None and not randomness.ended:
        text = json.dumps({domain: value.tolist() for domain, value in shares.items()}, indent=2)
        write_text(os.path.join(path, SHARES), text + "\n")


def kept_shares(randomness: Randomness, domain: str, shape: tuple[int, int]) -> np.ndarray:
    """The class shares of a run that has ended, in every process; all must call it.

    Args:
      randomness: of the run.
      domain: whose shares.
      shape: (N, L).

    Returns:
      f32[N, L], bit for bit as they were.

    Raises:
      UserError: the file does not hold them.
    """
    empty = np.zeros(shape, np.float32)
    found = randomness.shares.get(domain, empty if not distributed.is_main() else empty[:0])
    if found.shape != shape:
        raise _damaged(SHARES)
    return distributed.from_main(found)


def kept_arrays(randomness: Randomness, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of three or four axes of a run that has ended, whatever their sizes, in every process; all must call it.

    Args:
      randomness: of the run.
      names: as given to `keep_shares`.

    Returns:
      f32[N, ., .] or f32[N, ., ., .] each, bit for bit as they were.

    Raises:
      UserError: the file does not hold them.
    """
    found = []
    for name in names:
        mine = randomness.shares.get(name, np.zeros((0, 0, 0), np.float32))
        sizes = (*mine.shape, 0, 0, 0, 0)[:4] if mine.ndim in (3, 4) else (0, 0, 0, 0)
        shape = tuple(int(size) for size in distributed.from_main(np.asarray(sizes, np.int32)))
        shape = shape if shape[3] else shape[:3]
        if not all(shape):
            raise _damaged(SHARES)
        found.append(distributed.from_main(mine if distributed.is_main() else np.zeros(shape, np.float32)))
    return found


def _read_shares(path: str) -> dict[str, np.ndarray]:
    file = os.path.join(path, SHARES)
    try:
        with open(file, encoding="utf-8") as content:
            return {domain: np.asarray(value, np.float32) for domain, value in json.load(content).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(file) from error


def _damaged(file: str) -> UserError:
    return UserError(f"{file!r} does not hold the run's class shares, whose noise is gone; {NEW_WORKDIR}")


def _holds_something(path: str) -> bool:
    return bool(os.listdir(path)) if os.path.isdir(path) else os.path.isfile(path) and os.path.getsize(path) > 0
