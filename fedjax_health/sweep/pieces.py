"""Pieces of a sweep: the runs that one compiled program serves, each piece with a name that says exactly what is in it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from ml_collections import config_dict

from fedjax_health import __version__, checks
from fedjax_health.config import Config, from_config_dict, to_json
from fedjax_health.sweep.design import Settings
from fedjax_health.types import UserError

FORMAT = 1  # of a result file; another number, another name
ENDING = ".parquet"

# config keys that a compiled program is given as numbers, and that no shape depends on
_OF_RUN = (
    "privacy.epsilon",
    "privacy.delta",
    "privacy.noise_multiplier",
    "privacy.prior_noise_multiplier",
    "privacy.trial",
)
_OF_MODEL = ("kl_weight", "penalty", "generator_learning_rate", "reconstruction_weight")
_OF_TRAIN = ("client_learning_rate", "server_learning_rate", "proximal_weight", "l2_clip_norm", "rounds")


class Piece(NamedTuple):
    """Runs that differ in traced numbers alone. Plain values: it can be sent to another process as it is.

    Attributes:
      name: twelve hexadecimal digits of the SHA-256 of its runs' whole configs; names its file.
      config: file of the runs' config, such as "configs/iot.py:smoke".
      points: what each run has other than that file, as (dotted key, value).
      judged: "tables" (every figure of a run's tables) or "score" (that of validation clients alone, see `sweep.score`).
      batching: how its runs share the devices, see `Sweep`; no part of the name, since it moves last digits alone.
    """

    name: str
    config: str
    points: tuple[Settings, ...]
    judged: str = "tables"
    batching: str = "auto"


Engine: TypeAlias = Callable[[Sequence[Piece], str], None]  # (pieces, folder): every piece's result file is then there


def result_path(piece: Piece, folder: str) -> str:
    """Where a piece's result is, once it is done.

    Args:
      piece: the piece.
      folder: of the sweep.
    """
    return os.path.join(folder, "pieces", piece.name + ENDING)


def is_done(piece: Piece, folder: str) -> bool:
    """Whether a piece need not be run: its file appears whole or not at all.

    Args:
      piece: the piece.
      folder: of the sweep.
    """
    return os.path.isfile(result_path(piece, folder))


def load_file(name: str) -> Any:
    """What `get_config` of a config file returns.

    Args:
      name: "path" or "path:variant".

    Raises:
      UserError: no such file, no `get_config`, or no such variant.
    """
    path, _, variant = name.partition(":")
    if not os.path.isfile(path):
        raise UserError(f"config file {path!r} does not exist; give one such as configs/iot.py")
    spec = importlib.util.spec_from_file_location("fedjax_health_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(*([variant] if variant else []))
    except (SyntaxError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"config {name!r} cannot be loaded: {error}; mend the file or the variant's name") from error


def config_of(file: str, settings: Settings, base: Any = None) -> Config:
    """The checked config of one run.

    Args:
      file: of the runs' config.
      settings: what it has other than that.
      base: what `load_file` returned, where many runs share it; it is not changed.

    Raises:
      UserError: an unknown key, a wrong type, or a broken rule; names the settings.
    """
    raw = config_dict.ConfigDict(json_free(base if base is not None else load_file(file)))
    for key, value in settings:
        *sections, last = key.split(".")
        node: Any = raw
        for section in sections:
            node = node.get(section) if isinstance(node, config_dict.ConfigDict) else None
        if not isinstance(node, config_dict.ConfigDict) or last not in node:
            raise UserError(f"unknown config key {key!r} in a sweep of {file}; see configs/base.py for the keys")
        try:
            node[last] = float(value) if isinstance(node[last], float) and isinstance(value, int) else value
        except TypeError as error:
            kind = "section" if isinstance(node[last], config_dict.ConfigDict) else type(node[last]).__name__
            raise UserError(
                f"config key {key!r} is a {kind}, and a sweep of {file} gives {value!r}; mend its axis"
            ) from error
    config = from_config_dict(raw)
    if set(config.data.domains) & set(checks.STREAMS):
        raise UserError(
            f"data.domains={config.data.domains}: sweeps are of tables, not of streams; run launch.main instead"
        )
    if config.privacy.randomness != "seed":
        raise UserError(
            "privacy.randomness='system' makes noise that nothing repeats, which a sweep's commands must; use 'seed'"
        )
    return config


def json_free(raw: Any) -> dict[str, Any]:
    """A ConfigDict as nested dicts, tuples kept."""
    return {k: json_free(v) if isinstance(v, config_dict.ConfigDict) else v for k, v in raw.items()}


def static_part(config: Config) -> str:
    """Whatever of a config changes the compiled program, as JSON: runs with the same can share one.

    Args:
      config: of a run.
    """
    tree = dataclasses.asdict(config)
    mechanism = config.privacy.mechanism
    drawn = mechanism == "distributed_gaussian"  # its grid is built into the program
    keys: list[str] = [] if drawn else list(_OF_RUN)
    secure = False
    for model in config.models:
        section = tree.get(model)
        if section is None:
            continue
        keys += [f"{model}.{name}" for name in _OF_MODEL if name in section]
        aggregation = section["train"]["aggregation"]
        gridded = aggregation["rule"] == "fixed_point" or aggregation["secure"] != "none" or drawn
        secure = secure or aggregation["secure"] != "none"
        for name in _OF_TRAIN:
            built_in = (
                (gridded or section["train"][name] == float("inf"))
                if name == "l2_clip_norm"
                else (name == "rounds" and mechanism == "correlated_gaussian")
            )
            if not built_in:
                keys.append(f"{model}.train.{name}")
    if not secure:
        keys.append("data.audit_fraction")
    if mechanism != "none" and config.representation != "public":
        keys.append("privacy.representation_share")
    for key in keys:
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = None
    return json.dumps(tree, sort_keys=True)


def make_pieces(
    file: str, points: Sequence[Settings], points_per_piece: int = 0, judged: str = "tables", batching: str = "auto"
) -> list[Piece]:
    """Deals the points of a sweep into pieces: by what must be compiled, then by size. The same point twice is run once.

    Args:
      file: of the runs' config.
      points: settings of each run.
      points_per_piece: most points of a piece; 0 = all that share a program.
      judged, batching: of a Piece.

    Raises:
      UserError: of a run's config.
    """
    base = load_file(file)
    groups: dict[str, dict[str, Settings]] = {}
    for settings in points:
        config = config_of(file, settings, base)
        groups.setdefault(static_part(config), {}).setdefault(to_json(config), settings)
    pieces = []
    for group in groups.values():
        whole = list(group.items())
        step = points_per_piece or len(whole)
        for first in range(0, len(whole), step):
            configs, settings = zip(*whole[first : first + step], strict=True)
            pieces.append(Piece(_name((judged, *configs)), file, settings, judged, batching))
    return pieces


def _name(configs: Sequence[str]) -> str:
    text = "\0".join([str(FORMAT), __version__, *configs])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def command(file: str, settings: Settings, folder: str) -> str:
    """The shell command that runs one point alone.

    Args:
      file: of the runs' config.
      settings: of the point.
      folder: of that run.
    """
    flags = [f"--config.{key}={_shell(value)}" for key, value in settings]
    return " ".join(["python -m launch.main", f"--config={file}", *flags, f"--workdir={folder}"])


def _shell(value: Any) -> str:
    text = repr(value) if isinstance(value, (tuple, list)) else str(value)
    return text if text and all(c.isalnum() or c in "._-+/" for c in text) else f'"{text}"'
