"""Static configuration: frozen dataclasses made from a ConfigDict, with cross-field checks that say what to mend."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeAlias

from ml_collections import config_dict

from fedjax_health import checks, sections
from fedjax_health.attacks_config import AttacksConfig
from fedjax_health.evaluation_config import ClassifierConfig, EvaluationConfig
from fedjax_health.federation_config import DevicesConfig, PartitionConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where records come from.

    Attributes:
      domains: names of sources: "vitals", "threats" (simulated); "physionet2019", "wustl_ehms", "nsl_kdd", "mimic3",
        "non_eeg", "table".
      path, schema: file or folder of a real source; schema file of "table".
      task: task of "table": "diagnosis" or "detection".
      label: label of "mimic3": "mortality", "sepsis", "diabetes" or "heart_failure".
      features: columns of "wustl_ehms": "all", "network" or "biometrics".
      population: "stored" or "procedural" (simulated only: records are made inside the program, any number of devices).
      num_clients: simulated training clients (validation and test clients come on top).
      validation_fraction, test_fraction: share of clients held out, of all (real) or on top of num_clients (simulated);
        where the data have an official test set ("nsl_kdd"), that is the test set and the second is not read.
      audit_fraction: share of training clients left out at random in each seed: the non-members of the attacks.
      reference_clients: procedural only: training clients whose records are stored for evaluation.
      representation: model space of the generators: "public" (scaled by public centres and spreads), "scores" (each numeric
        column by its distribution function to a normal one), "copula" (and uncorrelated; see `data.representation`) or
        "auto": "copula" for tables where clients can be asked (stored records, a server that may see sums), else "public".
      partition: how records are dealt to training clients, for studies of heterogeneity.
    """

    domains: tuple[str, ...]
    path: str
    schema: str
    task: str
    label: str
    features: str
    population: str
    num_clients: int
    validation_fraction: float
    test_fraction: float
    audit_fraction: float
    reference_clients: int
    representation: str
    partition: PartitionConfig


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Variational autoencoder.

    Attributes:
      hidden, latent: hidden layer sizes and latent size.
      dense: form of the layers' products: "auto" (by backend), "outer" or "dot".
      kl_weight: weight of the KL term.
      train: how it is trained.
      decoder: "independent" cells given the latent, or "causal", each given those before it; of tables, not of streams.
    """

    hidden: tuple[int, ...]
    dense: str
    latent: int
    kl_weight: float
    train: TrainConfig
    decoder: str = "independent"


@dataclasses.dataclass(frozen=True)
class GanConfig:
    """GAN, WGAN-GP or AC-GAN.

    Attributes:
      hidden: hidden layer sizes of both networks.
      dense: form of the layers' products: "auto" (by backend), "outer" or "dot".
      latent: size of the generator's noise.
      placement: "split" (clients train the discriminator, the server the generator) or "joint" (clients train both).
      penalty: weight of the gradient penalty (WGAN-GP only).
      generator_steps: server-side generator steps a round (split only).
      generator_batch: rows a generator step.
      generator_learning_rate: Adam step of the generator (split), or its SGD step on the client (joint).
      train: how the clients train.
      discriminator_steps: "fixed" (a generator update every round) or "adaptive" (split only: after 1, 2, 5, 10, 20 or 50
        rounds, more where the discriminator does not tell fakes; see `models.ladder`).
      generator: "direct", a network whose outputs are the row, or "causal", each cell from noise of its own and those before it
        (see `models.column_rows`; of tables, not of streams, nor of medGAN, whose rows are made by its decoder).
    """

    hidden: tuple[int, ...]
    dense: str
    latent: int
    placement: str
    penalty: float
    generator_steps: int
    generator_batch: int
    generator_learning_rate: float
    train: TrainConfig
    discriminator_steps: str = "fixed"
    generator: str = "direct"


@dataclasses.dataclass(frozen=True)
class MedganConfig(GanConfig):
    """medGAN: a GAN over the codes of an autoencoder; `latent` is the size of the noise and of a code.

    Attributes:
      reconstruction_weight: weight of the autoencoder's loss beside the discriminator's.
    """

    reconstruction_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class PateganConfig:
    """PATE-GAN: clients train teachers, which vote on generated records; the server trains a student on noisy majorities.

    Attributes:
      hidden: hidden layer sizes of generator, teachers and student.
      dense: form of the layers' products: "auto" (by backend), "outer" or "dot".
      latent: size of the generator's noise.
      teachers: k >= 2; train.cohort is a multiple of it, so that each round asks as many clients of every teacher.
      votes: n > 0, generated records that all teachers vote on in a round; the noise on a record's votes has the deviation
        z sqrt(n), z that of the run.
      threshold: a teacher calls a record real where its output is above "zero" (Jordon et al.), or above its "mean" over the
        round's records of that label: then about half are called real however well teachers tell fakes, and there is a majority
        to learn from.
      generator_steps: generator steps a round against the student.
      generator_batch: rows a generator step.
      generator_learning_rate: Adam step of the generator.
      train: how clients train their teacher (client_...), and the server the student (server_...).
    """

    hidden: tuple[int, ...]
    dense: str
    latent: int
    teachers: int
    votes: int
    threshold: str
    generator_steps: int
    generator_batch: int
    generator_learning_rate: float
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    """Denoising diffusion.

    Attributes:
      hidden: hidden layer sizes of the denoiser.
      dense: form of the layers' products: "auto" (by backend), "outer" or "dot".
      steps: noise levels, and with them steps a sample takes (>= 2).
      train: how it is trained.
    """

    hidden: tuple[int, ...]
    dense: str
    steps: int
    train: TrainConfig


# the section of any generative model
ModelConfig: TypeAlias = VaeConfig | GanConfig | MedganConfig | DiffusionConfig | PateganConfig


@dataclasses.dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of what a run publishes.

    Attributes:
      mechanism: "central_gaussian" (DP-FedAvg: hides a client, noise on the server's sum), "record_gaussian" (DP-SGD on the
        client: hides one record, `l2_clip_norm` bounds its gradient, and nobody sees an update without noise),
        "local_gaussian" (noise on each client's own clipped update and class shares before they leave it: hides a client's
        data, from the server as well, but not that it takes part), "correlated_gaussian" (as central, with noise that cancels
        over rounds, and clients that take turns), "distributed_gaussian" (discrete noise in each client's message, of which
        the server sees the secure sum only: hides a client's data from it as well, at the noise of one sum) or "none".
      epsilon: budget of all that a run publishes about one client (or record), all domains and models together (> 0).
      delta: 0 means K^-1.1, K the clients (or records); else it must be below 1/K.
      noise_multiplier: 0 = calibrated so that the whole run meets epsilon; else used as given, and training stops at
        the budget.
      prior_noise_multiplier: noise of the class-share histogram, in units of its sensitivity (> 0).
      representation_share: share of the budget, as mu of one Gaussian mechanism, for the distribution functions and
        correlations of data.representation, in (0, 1); training keeps sqrt(1 - share^2) of it.
      canaries: virtual clients a federation that audit the noise while it trains; 0 = none, else 100 or more say something.
      noise_bands: of "correlated_gaussian" (>= 2 there): rounds over which the noise is correlated, and in which a client takes
        part once at most; noise_bands x cohort clients are needed.
      least_share: of "distributed_gaussian", share of the expected cohort whose noise is the whole of it, in (0, 1]: a round of
        fewer is void, one of more has more noise than it needs.
      randomness: where published trainings and class shares draw from: "seed" (repeatable by whoever knows `seed` or tries
        2^31 keys) or "system" (256 bits of the operating system, removed once all is trained; see `randomness`).
      trial: number of a run among those of a sweep of which one is published, 0 elsewhere; each draws noise of its own.
    """

    mechanism: str
    epsilon: float
    delta: float
    noise_multiplier: float
    prior_noise_multiplier: float
    representation_share: float = 0.45
    canaries: int = 0
    noise_bands: int = 4
    least_share: float = 0.75
    randomness: str = "seed"
    trial: int = 0


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run. `seeds` federations are trained side by side; the first one is published, all give the intervals.

    `quick_compile` asks XLA for little optimisation: for runs that compile longer than they work.
    """

    name: str
    seed: int
    seeds: int
    quick_compile: bool
    data: DataConfig
    models: tuple[str, ...]
    vae: VaeConfig
    gan: GanConfig
    wgan_gp: GanConfig
    acgan: GanConfig
    medgan: MedganConfig
    diffusion: DiffusionConfig
    pategan: PateganConfig
    classifier: ClassifierConfig
    devices: DevicesConfig
    privacy: PrivacyConfig
    evaluation: EvaluationConfig
    attacks: AttacksConfig = AttacksConfig()  # noqa: RUF009 - frozen

    @property
    def representation(self) -> str:
        """Of `schema.REPRESENTATIONS`: data.representation, "auto" resolved."""
        if self.data.representation != "auto":
            return self.data.representation
        asked = self.data.population == "stored" and self.privacy.mechanism in checks.TRUSTED
        return "copula" if asked and not set(self.data.domains) & set(checks.STREAMS) else "public"


def from_config_dict(raw: config_dict.ConfigDict | dict[str, Any]) -> Config:
    """Converts and checks a config.

    Args:
      raw: what a config file's `get_config` returns, with overrides applied.

    Raises:
      UserError: unknown key (and the nearest known one), wrong type, or a broken rule.
    """
    config = sections.section(Config, raw, "")
    checks.check(config)
    return config


def to_json(config: Config) -> str:
    """The whole config as sorted JSON: the identity of a workdir."""
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + "\n"
