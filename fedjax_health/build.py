"""From names in a config to parts: the only file that knows the concrete ones."""

from __future__ import annotations

from collections.abc import Callable

from jax.sharding import Mesh

from fedjax_health import rng
from fedjax_health.build_federation import build_federation
from fedjax_health.build_secure import check_private_secure, ring_graph
from fedjax_health.config import (
    ClassifierConfig,
    Config,
    GanConfig,
    MedganConfig,
    ModelConfig,
    PateganConfig,
    TrainConfig,
    VaeConfig,
)
from fedjax_health.data.domain import Domain, domain_from_simulator, domain_from_source
from fedjax_health.data.mimic3 import load_mimic3, mimic3_schema
from fedjax_health.data.non_eeg import NON_EEG, load_non_eeg
from fedjax_health.data.nsl_kdd import SCHEMA as NSL_KDD
from fedjax_health.data.nsl_kdd import load_nsl_kdd
from fedjax_health.data.physionet2019 import SCHEMA as PHYSIONET2019
from fedjax_health.data.physionet2019 import load_physionet2019
from fedjax_health.data.representation import layout_of
from fedjax_health.data.schema import Schema, load_schema
from fedjax_health.data.simulator import Simulator
from fedjax_health.data.source import Source
from fedjax_health.data.stream_schema import StreamSchema
from fedjax_health.data.table import load_table
from fedjax_health.data.threats import make_threats
from fedjax_health.data.vital_stream import make_vital_stream
from fedjax_health.data.vitals import make_vitals
from fedjax_health.data.wustl_ehms import load_wustl_ehms, wustl_ehms_schema
from fedjax_health.devices.profile import CLASSES
from fedjax_health.devices.round import DeviceLayer, make_devices, make_ideal
from fedjax_health.federated.canaries import with_canaries
from fedjax_health.federated.federation import Parts
from fedjax_health.models.acgan import make_acgan
from fedjax_health.models.base import GenerativeModel, OneShot, Trainable
from fedjax_health.models.copula import make_copula
from fedjax_health.models.diffusion import make_diffusion
from fedjax_health.models.gan import make_gan
from fedjax_health.models.medgan import make_medgan
from fedjax_health.models.pategan import make_pategan
from fedjax_health.models.stream_vae import make_stream_vae
from fedjax_health.models.stream_wgan_gp import make_stream_wgan_gp
from fedjax_health.models.vae import make_vae
from fedjax_health.models.wgan_gp import make_wgan_gp
from fedjax_health.registry import lookup
from fedjax_health.threefry import root_key
from fedjax_health.types import UserError

SIMULATORS: dict[str, Callable[[], Simulator]] = {
    "vitals": make_vitals,
    "threats": make_threats,
    "vital_stream": make_vital_stream,
}
SOURCES: dict[str, Callable[[Config], Source]] = {
    "physionet2019": lambda c: load_physionet2019(c.data.path),
    "wustl_ehms": lambda c: load_wustl_ehms(c.data.path, c.data.features),
    "nsl_kdd": lambda c: load_nsl_kdd(c.data.path),
    "non_eeg": lambda c: load_non_eeg(c.data.path),
    "mimic3": lambda c: load_mimic3(c.data.path, c.data.label),
    "table": lambda c: load_table(c.data.path, c.data.schema, c.data.task),
}
SCHEMAS: dict[str, Callable[[Config], Schema]] = {  # of SOURCES, without their files
    "physionet2019": lambda c: PHYSIONET2019,
    "wustl_ehms": lambda c: wustl_ehms_schema(c.data.features),
    "nsl_kdd": lambda c: NSL_KDD,
    "non_eeg": lambda c: NON_EEG,
    "mimic3": lambda c: mimic3_schema(c.data.label),
    "table": lambda c: load_schema(c.data.schema),
}
MODELS: dict[str, Callable[..., GenerativeModel]] = {
    "vae": make_vae,
    "gan": make_gan,
    "wgan_gp": make_wgan_gp,
    "acgan": make_acgan,
    "medgan": make_medgan,
    "diffusion": make_diffusion,
    "pategan": make_pategan,
}
ONE_SHOTS: dict[str, Callable[..., OneShot]] = {"copula": make_copula}  # nothing of them is trained
STREAM_MODELS: dict[str, Callable[..., GenerativeModel]] = {"vae": make_stream_vae, "wgan_gp": make_stream_wgan_gp}


def build_domain(name: str, config: Config) -> Domain:
    """Loads or simulates a domain.

    Args:
      name: one of SIMULATORS or SOURCES.
      config: the run.

    Raises:
      UserError: unknown name, or anything wrong with the data.
    """
    if name in SIMULATORS:
        return domain_from_simulator(name, SIMULATORS[name](), config.data, config.seed)
    load = lookup("data domain", name, {**SIMULATORS, **SOURCES})
    if not config.data.path:
        raise UserError(f"domain {name!r} needs its files; give their place with --config.data.path=PATH")
    return domain_from_source(name, load(config), config.data, config.seed)  # pyright: ignore[reportArgumentType,reportCallIssue]


def trained(config: Config) -> tuple[str, ...]:
    """The models of a run that clients train; the others are statistics alone.

    Args:
      config: the run.
    """
    return tuple(model for model in config.models if model not in ONE_SHOTS)


def model_config(name: str, config: Config) -> ModelConfig:
    """The config section of a generative model, which has its name."""
    return getattr(config, name)


def model_numbers(section: ModelConfig) -> dict[str, float]:
    """The hyper-parameters that a model reads itself, beside those of its training.

    Args:
      section: the model's config section.
    """
    if isinstance(section, VaeConfig):
        return {"kl_weight": section.kl_weight}
    if isinstance(section, PateganConfig):
        return {"generator_learning_rate": section.generator_learning_rate}
    if not isinstance(section, GanConfig):
        return {}
    own = {"reconstruction_weight": section.reconstruction_weight} if isinstance(section, MedganConfig) else {}
    return {"penalty": section.penalty, "generator_learning_rate": section.generator_learning_rate, **own}


def training_numbers(section: ModelConfig | ClassifierConfig, noise_multiplier: float = 0.0) -> dict[str, float]:
    """All traced numbers of a training but the class shares.

    Args:
      section: config section of what is trained.
      noise_multiplier: of the run; not read where nothing is private.
    """
    train = section.train
    return {
        "client_learning_rate": train.client_learning_rate,
        "server_learning_rate": train.server_learning_rate,
        "rounds": float(train.rounds),
        "l2_clip_norm": train.l2_clip_norm,
        "proximal_weight": train.proximal_weight,
        "noise_multiplier": noise_multiplier,
        **({} if isinstance(section, ClassifierConfig) else model_numbers(section)),
    }


def build_model(name: str, domain: Domain, config: Config) -> GenerativeModel:
    """A generative model for a domain's columns, or for its windows where it is a stream.

    Args:
      name: one of MODELS, of STREAM_MODELS for a stream.
      domain: gives the layout and the number of classes.
      config: the run.
    """
    if isinstance(domain.schema, StreamSchema):
        make = lookup("model of streams", name, STREAM_MODELS)
        return make(domain.schema, domain.schema.num_classes, model_config(name, config))
    make = lookup("model", name, MODELS)
    layout = layout_of(domain.schema, config.representation)
    return make(layout, domain.schema.num_classes, model_config(name, config))


def build_one_shot(name: str, domain: Domain, config: Config) -> OneShot:
    """A generator of a domain's columns that is not trained.

    Args:
      name: one of ONE_SHOTS.
      domain: gives the layout and the number of classes.
      config: the run.
    """
    make = lookup("one-shot model", name, ONE_SHOTS)
    return make(layout_of(domain.schema, config.representation), domain.schema.num_classes)


def build_parts(
    model: Trainable, domain: Domain, train: TrainConfig, config: Config, mesh: Mesh, published: bool = True
) -> Parts:
    """The federation of a domain's training clients, on the run's simulated devices.

    Args:
      model: what is trained.
      domain: whose clients train it.
      train: how.
      config: the run; its privacy section says whether the training is private.
      mesh: the machine's devices.
      published: False for a model that only evaluates: no noise, and no devices to wait for.

    Raises:
      UserError: names the domain and what does not fit; see `build_federation`.
    """
    mechanism = config.privacy.mechanism if published else "none"
    timetable = mechanism != "none" and config.devices.deadline_seconds > 0

    def devices(cohort: int) -> DeviceLayer:
        return make_devices(config.devices, cohort, timetable) if published else make_ideal()

    try:
        parts = build_federation(
            model,
            domain.population,
            domain.encoder.layout.dim,
            domain.schema.num_classes,
            train,
            mesh,
            devices,
            config.devices.over_commitment if published else 1.0,
            mechanism,
            config.privacy.noise_bands,
            config.privacy.least_share,
        )
        if mechanism == "central_gaussian" and train.aggregation.secure != "none":
            check_private_secure(parts, ring_graph(train.aggregation, parts.sampler), *who_can_join(parts, config))
        if published and config.privacy.canaries:
            # against an observer who knows all other clients, as the guarantee has it
            key = root_key(rng.named_seed(config.seed, "canaries"))
            rotated = train.compression.rotate
            return with_canaries(parts, config.privacy.canaries, key, knows_clients=True, rotated=rotated)
        return parts
    except UserError as error:
        raise UserError(f"{domain.name}: {error}") from error


def who_can_join(parts: Parts, config: Config) -> tuple[int, float]:
    """Clients that are not left out for the audit, and the chance that one's device has the memory that training needs.

    Args:
      parts: gives the number of clients, and the memory.
      config: the run.
    """
    size = parts.population.size
    kinds = zip(config.devices.shares, CLASSES, strict=True)
    able = sum(share for share, kind in kinds if kind.memory_bytes >= parts.costs.memory_bytes)
    return size - max(1, round(size * config.data.audit_fraction)), min(1.0, able)
