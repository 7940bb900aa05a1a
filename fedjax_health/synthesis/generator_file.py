"""A published generator on disk: <name>.generator.npz holds its arrays, <name>.generator.json what they are.

Only what the run's guarantee covers goes out: the released part of the first seed, noisy class shares, and what is public
(sizes, schema). No client id, no key, no seed, nothing of another repeat; arrays are read without pickle, so a file cannot
run code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from fedjax_health import __version__
from fedjax_health.checks import DECODERS, GENERATORS, MODELS, ONE_SHOTS
from fedjax_health.config import DiffusionConfig, GanConfig, ModelConfig, VaeConfig
from fedjax_health.data.schema import Schema, schema_from_dict
from fedjax_health.files import replacing, write_text
from fedjax_health.registry import lookup
from fedjax_health.sections import section
from fedjax_health.types import UserError

FORMAT = 4
ENDING = ".generator.json"
_KEYS = (
    "format",
    "domain",
    "model",
    "network",
    "representation",
    "class_shares",
    "schema",
    "arrays",
    "sha256",
    "versions",
)
_REMEDY = "restore the file, or repeat the run's command, which publishes it again"


def _check_sizes(*sizes: int) -> None:
    for size in sizes:
        if not 1 <= size <= 1 << 20:
            raise UserError(f"size {size} of a network is not from 1 to {1 << 20}")


@dataclasses.dataclass(frozen=True)
class Network:
    """What of a model's config section its `sample` depends on.

    Attributes:
      hidden, latent: hidden layer sizes and latent size, 1 to 2^20 each.
      generator: "direct" or, of a GAN, "causal".
    """

    hidden: tuple[int, ...]
    latent: int
    generator: str = "direct"

    def __post_init__(self):
        _check_sizes(*self.hidden, self.latent)
        if self.generator not in GENERATORS:
            raise UserError(f"generator {self.generator!r} is not one of {', '.join(GENERATORS)}")


@dataclasses.dataclass(frozen=True)
class Coder:
    """The same of a variational autoencoder.

    Attributes:
      hidden, latent: as of `Network`.
      decoder: "independent" or "causal".
    """

    hidden: tuple[int, ...]
    latent: int
    decoder: str

    def __post_init__(self):
        _check_sizes(*self.hidden, self.latent)
        if self.decoder not in DECODERS:
            raise UserError(f"decoder {self.decoder!r} is not one of {', '.join(DECODERS)}")


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """The same of a diffusion model.

    Attributes:
      hidden, steps: hidden layer sizes and number of noise levels, 1 to 2^20 each.
    """

    hidden: tuple[int, ...]
    steps: int

    def __post_init__(self):
        _check_sizes(*self.hidden, self.steps)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """The same of a model without a network."""


Sizes: TypeAlias = Network | Coder | Denoiser | Nothing
SIZES: dict[str, type[Sizes]] = {
    "vae": Coder,
    "diffusion": Denoiser,
    "copula": Nothing,
}  # of the models that have no Network


def sizes(section: ModelConfig) -> Sizes:
    """What of a config section goes into a generator's file.

    Args:
      section: of the model.
    """
    if isinstance(section, DiffusionConfig):
        return Denoiser(section.hidden, section.steps)
    if isinstance(section, VaeConfig):
        return Coder(section.hidden, section.latent, section.decoder)
    return Network(section.hidden, section.latent, section.generator if isinstance(section, GanConfig) else "direct")


class Stored(NamedTuple):
    """A generator as its files hold it.

    Attributes:
      path: the JSON file, for messages.
      domain, model: names, such as "vitals" and "vae".
      network: sizes, of the kind that the model has.
      representation: of `schema.REPRESENTATIONS`.
      schema: columns, without a client's.
      shares: f32[L], sums to 1.
      arrays: path of a leaf of `Published`, such as "network/decoder/params/Dense_0/kernel", to f32 array.
    """

    path: str
    domain: str
    model: str
    network: Sizes
    representation: str
    schema: Schema
    shares: np.ndarray
    arrays: dict[str, np.ndarray]


def public_schema(schema: Schema) -> Schema:
    """A schema without its client-id column, as everything published has it.

    Args:
      schema: of the training data.
    """
    return dataclasses.replace(schema, columns=tuple(c for c in schema.columns if c.role != "client"))


def leaf_paths(tree: Any) -> dict[str, Any]:
    """Leaves by their path, keys joined by "/": {"a": {"b": x}} -> {"a/b": x}.

    Args:
      tree: nested dicts of arrays or ShapeDtypeStructs.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def save_generator(
    folder: str,
    domain: str,
    model: str,
    network: Sizes,
    representation: str,
    released: Any,
    shares: np.ndarray,
    schema: Schema,
) -> None:
    """Writes <domain>_<model>.generator.npz, then .generator.json; equal generators give equal bytes.

    Args:
      folder: the run's synthetic/ folder.
      domain, model: names.
      network: its sizes.
      representation: of `schema.REPRESENTATIONS`.
      released: `Published` of one federation, f32 leaves without a leading axis.
      shares: f32[L], its noisy class shares.
      schema: columns of the training data; a client-id column is left out.
    """
    path = os.path.join(folder, f"{domain}_{model}{ENDING}")
    # in one order of memory, which the file names: equal generators give equal bytes
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in leaf_paths(released).items()}
    with replacing(_arrays_path(path)) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        digest = _digest(temporary)
    description = {
        "format": FORMAT,
        "domain": domain,
        "model": model,
        "network": dataclasses.asdict(network),
        "representation": representation,
        "class_shares": [float(share) for share in shares],
        "schema": json.loads(public_schema(schema).to_json()),
        "arrays": os.path.basename(_arrays_path(path)),
        "sha256": digest,
        "versions": {"fedjax_health": __version__, "jax": jax.__version__, "numpy": np.__version__},
    }
    write_text(path, json.dumps(description, indent=2) + "\n")


def read_generator(path: str) -> Stored:
    """Reads a generator's two files; whether the arrays fit the model is for `generator.load_generator` to say.

    Args:
      path: the .generator.json file; its arrays lie beside it.

    Raises:
      UserError: a file that is missing, truncated, damaged, of another format, not of the other one, or of an unknown model.
    """
    raw = _description(path)
    try:
        lookup("model", str(raw["model"]), dict.fromkeys((*MODELS, *ONE_SHOTS)))
    except UserError as error:
        raise UserError(f"{path}: {error}; repeat the run with this version of fedjax_health") from error
    try:
        schema = schema_from_dict(raw["schema"], "schema")
        network = section(SIZES.get(raw["model"], Network), raw["network"], "network")
        shares = np.asarray(raw["class_shares"], np.float32)
    except (AttributeError, TypeError, ValueError) as error:  # a UserError is a ValueError
        raise UserError(f"{path} is damaged ({error}); {_REMEDY}") from error
    if shares.shape != (schema.num_classes,) or not (shares > 0).all() or abs(float(shares.sum()) - 1.0) > 1e-3:
        raise UserError(
            f"{path}: class_shares are not {schema.num_classes} positive numbers that sum to 1, one a category of "
            f"{schema.label.name!r}; {_REMEDY}"
        )
    beside = _arrays_path(path)
    try:
        with open(beside, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        digest = _digest(beside)
    except FileNotFoundError as error:
        raise UserError(f"{beside} is missing beside its .json; {_REMEDY}") from error
    except (
        OSError,
        EOFError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:  # TypeError: a lone array, no archive
        raise UserError(f"{beside} cannot be read, it is truncated or damaged; {_REMEDY}") from error
    if digest != raw["sha256"]:
        raise UserError(f"{beside} is not the file that {path} describes, its SHA-256 differs; {_REMEDY}")
    return Stored(
        path, str(raw["domain"]), str(raw["model"]), network, str(raw["representation"]), schema, shares, arrays
    )


def _description(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path} is not JSON, it is truncated or damaged; {_REMEDY}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else None
        raise UserError(
            f"{path} has format {found!r} and this version of fedjax_health reads {FORMAT}; repeat the run with this version"
        )
    if missing := [key for key in _KEYS if key not in raw]:
        raise UserError(f"{path} lacks the key {missing[0]!r}; {_REMEDY}")
    return raw


def _arrays_path(path: str) -> str:
    return path.removesuffix(".json") + ".npz"


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
