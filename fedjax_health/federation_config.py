"""Static configuration of a federation: how a model is trained, on which devices, over which links, against whom."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """What happens to an update on its way up, and to the model on its way down; all in this order, 0 = off.

    Attributes:
      rotate: spread the update by a random Hadamard rotation before it is compressed (helps quantisation).
      sparsify: "none", "top_k" or "rand_k".
      keep_fraction: share of the coordinates kept by `sparsify`, in (0, 1].
      error_feedback: remember on the client what compression lost and add it in the next round (memory K x d).
      bits: bits a value of stochastic quantisation, 1 to 16; 0 = float32.
      sign: send only signs and one scale (excludes bits).
      down_bits: bits a value of the broadcast model, 1 to 16; 0 = float32.
    """

    rotate: bool
    sparsify: str
    keep_fraction: float
    error_feedback: bool
    bits: int
    sign: bool
    down_bits: int


@dataclasses.dataclass(frozen=True)
class AggregationConfig:
    """How the server combines updates, and who attacks it.

    Attributes:
      rule: "mean", "fixed_point" (a mean over an integer grid: bit-equal on any number of devices), "norm_bound", "median",
        "trimmed_mean", "krum", "multi_krum" or "geometric_median".
      weighting: "equal" or "examples"; a private run needs "equal".
      assumed_attackers: share of attackers that trimmed_mean, krum and multi_krum are built for, in [0, 0.5).
      attack: "none", "label_flip", "backdoor", "sign_flip", "gaussian", "alie" or "ipm".
      attackers: share of the clients that attack, in [0, 1).
      attack_scale: strength: factor of sign_flip and ipm, deviations of alie and gaussian, boost of backdoor.
      secure: "none" (the server sees every update), "ideal" (integer sums modulo 2^32, void without a quorum, as secure
        aggregation gives them) or "masked" (the same sums by way of simulated masks; all updates of a round in memory).
      secure_bits: bits of one client's coordinate on the integer grid, 2 to 24.
      secure_degree: clients that each client masks with, even; 0 = 2 ceil(log2 cohort), at most half the cohort. More than
        half of them must stay, or the round is void.
    """

    rule: str
    weighting: str
    assumed_attackers: float
    attack: str
    attackers: float
    attack_scale: float
    secure: str = "none"
    secure_bits: int = 16
    secure_degree: int = 0


@dataclasses.dataclass(frozen=True)
class HierarchyConfig:
    """Device -> institution -> server.

    Attributes:
      institutions: number of institutions, each with a model of its own between two meetings; 0 = devices speak to the
        server directly.
      period: rounds inside the institutions between two meetings at the server (> 0).
    """

    institutions: int
    period: int


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How one model is trained in the federation; one of these a model.

    Attributes:
      rounds: T, the most rounds (> 0).
      rounds_per_chunk: R, rounds inside one compiled call (> 0); cannot change results.
      cohort: expected clients a round, > 0; for fedbuff the updates that make a server step.
      sampler: "poisson" (each client independently; what the accountant amplifies by), "fixed" (exactly `cohort` different
        clients) or "full" (every client).
      clients_per_chunk: clients trained side by side on one device; bounds memory, cannot change results; 0 = the
        fastest for the backend.
      local: "epochs" (true local epochs, masked) or "steps" (a fixed number of batches drawn with replacement).
      local_epochs, local_steps: E or S, whichever `local` uses (> 0).
      batch_size: B (> 0).
      algorithm: "fedavg", "fedprox", "scaffold", "fednova", "mime_lite" or "fedbuff".
      server_optimizer: "sgd", "adam", "rmsprop", "yogi" or "adagrad" on the mean update (FedAdam = fedavg with "adam").
      client_optimizer: "sgd" or "adam", fresh in every round.
      client_learning_rate, server_learning_rate: > 0.
      server_schedule: of server_learning_rate, and of generator_learning_rate where the server trains a generator: "constant",
        or "cosine", from the whole in the first round to 0 after `rounds` of them.
      proximal_weight: mu of fedprox, >= 0.
      concurrency: fedbuff: clients in training at any time (> 0).
      max_staleness: fedbuff: updates from a model older than this many server steps are dropped (> 0).
      step_clip_norm: bound on the norm of one local step's gradient (0 = none), against runaway clients.
      l2_clip_norm: bound on a client's update, or with privacy.mechanism='record_gaussian' on a record's gradient (> 0).
      clip_quantile: 0 = that bound is fixed; else the share of updates to leave unclipped, in (0, 1): the bound starts at
        l2_clip_norm and follows the quantile under the same noise (fedavg, fedprox).
      clip_learning_rate: step of the logarithm of the bound in a round, with clip_quantile (> 0).
      ema_decay: decay of the averaged published parameters, in [0, 1); 0 publishes the last iterate.
      convergence_window: rounds in the window of the convergence rule (0 = off).
      convergence_tolerance: stop when the mean public update norm changes by less than this fraction between windows.
      aggregation, compression, hierarchy: sections of their own.
    """

    rounds: int
    rounds_per_chunk: int
    cohort: int
    sampler: str
    clients_per_chunk: int
    local: str
    local_epochs: int
    local_steps: int
    batch_size: int
    algorithm: str
    server_optimizer: str
    client_optimizer: str
    client_learning_rate: float
    server_learning_rate: float
    proximal_weight: float
    concurrency: int
    max_staleness: int
    step_clip_norm: float
    l2_clip_norm: float
    ema_decay: float
    convergence_window: int
    convergence_tolerance: float
    aggregation: AggregationConfig
    compression: CompressionConfig
    hierarchy: HierarchyConfig
    clip_quantile: float = 0.0
    clip_learning_rate: float = 0.2
    server_schedule: str = "constant"


@dataclasses.dataclass(frozen=True)
class DevicesConfig:
    """The devices behind the clients; times are simulated and driven by the FLOPs and bytes of the round.

    Attributes:
      shares: share of each class in the fleet (wearable on BLE, phone on LTE, phone on Wi-Fi, hospital gateway); sums to 1.
      availability: "always", "markov" (on and off at random) or "diurnal" (a daily cycle, mostly on at night).
      on_fraction: share of the time a device is on, in (0, 1].
      mean_on_seconds: markov: mean length of an on-period, s.
      failures_per_hour: rate at which a working device drops out mid-round, >= 0.
      deadline_seconds: updates that come later are left out, s; 0 = the round waits for the slowest.
      over_commitment: factor >= 1 on the clients asked; the round ends when `cohort` of them have answered. Above 1 the
        choice depends on everybody, which no accountant covers: only without privacy.
    """

    shares: tuple[float, ...]
    availability: str
    on_fraction: float
    mean_on_seconds: float
    failures_per_hour: float
    deadline_seconds: float
    over_commitment: float


@dataclasses.dataclass(frozen=True)
class PartitionConfig:
    """How records of a table are dealt to clients, for studies of heterogeneity; "natural" keeps the data's own clients.

    Attributes:
      scheme: "natural", "iid", "dirichlet" (label skew) or "quantity" (power-law sizes).
      num_clients: clients dealt to (> 0); not used by "natural".
      alpha: concentration of "dirichlet" (> 0; small = skewed) or exponent of "quantity" (>= 0; 0 = equal).
      sites: groups of clients that share a feature skew; 0 = none.
      site_gain, site_offset, site_noise: deviations of a site's gain (of 1), offset and added noise, in each column's scale.
      site_keep: least share of the records a site's sampling rate keeps, in (0, 1]; each site draws from [site_keep, 1].
    """

    scheme: str
    num_clients: int
    alpha: float
    sites: int
    site_gain: float
    site_offset: float
    site_noise: float
    site_keep: float
