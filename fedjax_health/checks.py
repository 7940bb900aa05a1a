"""Cross-field rules of a config; the first one broken is told with its key, its value and the remedy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedjax_health.attacks_config import check_attacks
from fedjax_health.checks_training import check_choice, check_train, positive, require
from fedjax_health.checks_votes import check_votes
from fedjax_health.data.schema import REPRESENTATIONS
from fedjax_health.evaluation_config import check_classifier, check_controls

if TYPE_CHECKING:  # config imports this module
    from fedjax_health.config import Config
    from fedjax_health.federation_config import DevicesConfig, PartitionConfig


MECHANISMS = (
    "central_gaussian", "correlated_gaussian", "record_gaussian", "local_gaussian", "distributed_gaussian", "none",
)  # fmt: skip
GANS = ("gan", "wgan_gp", "acgan", "medgan")
MODELS = ("vae", *GANS, "diffusion", "pategan")
DECODERS = ("independent", "causal")  # of a VAE
GENERATORS = ("direct", "causal")  # of a GAN
ONE_SHOTS = ("copula",)  # models of statistics alone, which nobody trains
RIVALS = ("aim",)


def _check_devices(d: DevicesConfig, private: bool) -> None:
    require(
        len(d.shares) == 4 and min(d.shares) >= 0 and abs(sum(d.shares) - 1) < 1e-6,
        f"config devices.shares={d.shares} must be four shares that sum to 1 (wearable, LTE phone, Wi-Fi phone, gateway)",
    )
    check_choice("devices.availability", d.availability, ("always", "markov", "diurnal"))
    require(0 < d.on_fraction <= 1, f"config devices.on_fraction={d.on_fraction} must be in (0, 1]")
    positive("devices", d, "mean_on_seconds")
    for name in ("failures_per_hour", "deadline_seconds"):
        value = getattr(d, name)
        require(value >= 0, f"config devices.{name}={value} must be 0 or more")
    require(d.over_commitment >= 1, f"config devices.over_commitment={d.over_commitment} must be at least 1")
    require(
        not private or d.over_commitment == 1,
        f"config devices.over_commitment={d.over_commitment} lets one client's speed decide who else takes part, which the "
        "accountant does not cover; set it to 1 or privacy.mechanism to 'none'",
    )
    require(
        not private or d.availability == "always" or d.deadline_seconds > 0,
        f"config devices.availability={d.availability!r} without a deadline lets the slowest client move the hour of later "
        "rounds, and so who takes part in them; set devices.deadline_seconds, or privacy.mechanism to 'none'",
    )


def _check_partition(p: PartitionConfig) -> None:
    check_choice("data.partition.scheme", p.scheme, ("natural", "iid", "dirichlet", "quantity"))
    require(p.num_clients > 1, f"config data.partition.num_clients={p.num_clients} must be at least 2")
    require(p.alpha > 0, f"config data.partition.alpha={p.alpha} must be positive")
    require(p.sites >= 0, f"config data.partition.sites={p.sites} must be 0 (none) or positive")
    for name in ("site_gain", "site_offset", "site_noise"):
        value = getattr(p, name)
        require(value >= 0, f"config data.partition.{name}={value} must be 0 or more")
    require(0 < p.site_keep <= 1, f"config data.partition.site_keep={p.site_keep} must be in (0, 1]")


STREAMS = ("vital_stream", "non_eeg")  # domains whose records are windows of a stream
# mechanisms under which the server may see a sum over clients before it adds noise
TRUSTED = ("none", "central_gaussian", "correlated_gaussian")


def _check_one_shots(c: Config) -> None:
    given = f"config models={c.models} holds 'copula', "
    streams = [domain for domain in c.data.domains if domain in STREAMS]
    require(
        not streams,
        f"{given}which has no windows such as those of data.domains={streams}; leave it out or take a domain of tables",
    )
    require(
        c.privacy.mechanism in TRUSTED,
        f"{given}whose statistics the server sees as sums before their noise, which privacy.mechanism="
        f"{c.privacy.mechanism!r} does not allow; leave it out or set privacy.mechanism to 'central_gaussian'",
    )
    require(
        c.data.population == "stored",
        f"{given}which asks clients for statistics, and data.population={c.data.population!r} has none to be asked; leave it "
        "out or set data.population to 'stored'",
    )
    require(
        c.representation == "copula",
        f"{given}which is drawn in the space of data.representation='copula' and not {c.data.representation!r}; leave it out "
        "or set data.representation to 'copula'",
    )


def _check_models(c: Config) -> None:
    for name in MODELS:
        model = getattr(c, name)
        check_choice(f"{name}.dense", model.dense, ("auto", "outer", "dot"))
        require(
            all(h > 0 for h in model.hidden) and len(model.hidden) > 0,
            f"config {name}.hidden={model.hidden} must be positive sizes",
        )
        if name != "diffusion":
            require(model.latent > 0, f"config {name}.latent={model.latent} must be positive")
        # teachers are noised by their votes, not by their updates, whose rules are those of a training without privacy
        check_train(model.train, f"{name}.train", "none" if name == "pategan" else c.privacy.mechanism)
    for name in GANS:
        model = getattr(c, name)
        check_choice(f"{name}.placement", model.placement, ("split", "joint"))
        require(
            c.privacy.mechanism != "record_gaussian" or name not in c.models or model.placement == "split",
            f"config {name}.placement='joint' with privacy.mechanism='record_gaussian' would noise a generator that reads no "
            "record; set it to 'split'",
        )
        check_choice(f"{name}.discriminator_steps", model.discriminator_steps, ("fixed", "adaptive"))
        require(
            model.discriminator_steps == "fixed" or model.placement == "split",
            f"config {name}.discriminator_steps='adaptive' needs placement='split', where the server decides when the "
            "generator is updated; set either",
        )
        positive(name, model, "penalty", "generator_steps", "generator_batch", "generator_learning_rate")
        check_choice(f"{name}.generator", model.generator, GENERATORS)
        require(
            model.generator == "direct" or (name != "medgan" and not set(c.data.domains) & set(STREAMS)),
            f"config {name}.generator={model.generator!r} is for tables, and not for medgan, whose decoder makes the "
            "rows; set it to 'direct'",
        )
    require(c.vae.kl_weight > 0, f"config vae.kl_weight={c.vae.kl_weight} must be positive")
    check_choice("vae.decoder", c.vae.decoder, DECODERS)
    require(
        c.vae.decoder == "independent" or not set(c.data.domains) & set(STREAMS),
        f"config vae.decoder={c.vae.decoder!r} is for tables: the decoder of a stream goes through time as it is; set it to "
        "'independent'",
    )
    positive("medgan", c.medgan, "reconstruction_weight")
    steps = c.diffusion.steps
    require(2 <= steps <= 1000, f"config diffusion.steps={steps} must be from 2 to 1000; 50 is usual")
    _check_pategan(c)


def _check_pategan(c: Config) -> None:
    p = c.pategan
    require(p.teachers >= 2, f"config pategan.teachers={p.teachers} must be at least 2, or there is no majority")
    check_choice("pategan.threshold", p.threshold, ("mean", "zero"))
    positive("pategan", p, "votes", "generator_steps", "generator_batch", "generator_learning_rate")
    if "pategan" not in c.models:
        return
    check_votes(p.train, "pategan.train", c.privacy.mechanism, p.teachers, c.devices.over_commitment)
    require(
        c.privacy.canaries == 0,
        f"config privacy.canaries={c.privacy.canaries} audits noise on sums of updates, of which pategan has none; set it to "
        "0, or leave 'pategan' out of models",
    )


def check(c: Config) -> None:
    """Cross-field rules.

    Args:
      c: converted config.

    Raises:
      UserError: the first rule broken; names the key, its value and the remedy.
    """
    require(c.seed >= 0, f"config seed={c.seed} must be 0 or more")
    require(c.seeds > 0, f"config seeds={c.seeds} must be positive; 3 or more give intervals")
    known = (*MODELS, *ONE_SHOTS)
    require(len(c.models) > 0, "config models is empty; give at least one of " + ", ".join(known))
    for model in c.models:
        check_choice("models", model, known)
    require(len(set(c.models)) == len(c.models), f"config models={c.models} names a model twice")
    d, p, e = c.data, c.privacy, c.evaluation
    require(len(d.domains) > 0, "config data.domains is empty; name at least one source")
    simulated = set(d.domains) <= {"vitals", "threats", "vital_stream"}
    check_choice("data.population", d.population, ("stored", "procedural"))
    check_choice("data.task", d.task, ("diagnosis", "detection"))
    require(
        simulated or d.population == "stored",
        "config data.population='procedural' is for simulated domains only; use 'stored'",
    )
    require(
        not simulated or 1 < d.num_clients <= 2**30, f"config data.num_clients={d.num_clients} must be from 2 to 2^30"
    )
    require(d.reference_clients > 0, f"config data.reference_clients={d.reference_clients} must be positive")
    for name in ("validation_fraction", "test_fraction", "audit_fraction"):
        value = getattr(d, name)
        require(0 < value < 1, f"config data.{name}={value} must be between 0 and 1, both excluded")
    held_out = d.validation_fraction + d.test_fraction
    require(
        simulated or held_out < 1,
        f"config data: validation and test fractions sum to {held_out}; leave clients to train",
    )
    _check_partition(d.partition)
    check_choice("data.representation", d.representation, ("auto", *REPRESENTATIONS))
    fits = d.representation in ("scores", "copula")
    require(
        not fits or d.population == "stored",
        f"config data.representation={d.representation!r} asks clients for statistics before training, which data."
        "population='procedural' does not have; set it to 'auto'",
    )
    require(
        not fits or p.mechanism in TRUSTED,
        f"config data.representation={d.representation!r} has the server see a sum before its noise, which privacy."
        f"mechanism={p.mechanism!r} does not allow; set it to 'auto'",
    )
    require(
        0 < p.representation_share < 1,
        f"config privacy.representation_share={p.representation_share} must be between 0 and 1, both excluded",
    )
    check_choice("privacy.mechanism", p.mechanism, MECHANISMS)
    correlated = p.mechanism == "correlated_gaussian"
    require(
        p.noise_bands >= (2 if correlated else 1),
        f"config privacy.noise_bands={p.noise_bands} must be positive, and at least 2 for privacy.mechanism="
        "'correlated_gaussian'; with 1 that is 'central_gaussian'",
    )
    require(0 < p.least_share <= 1, f"config privacy.least_share={p.least_share} must be in (0, 1]")
    check_choice("privacy.randomness", p.randomness, ("seed", "system"))
    require(p.trial >= 0, f"config privacy.trial={p.trial} must be 0 or more")
    private = p.mechanism != "none"
    require(
        private or p.randomness == "seed",
        "config privacy.randomness='system' with privacy.mechanism='none' would hide noise that is not there; set it to 'seed'",
    )
    _check_devices(c.devices, private)
    asynchronous = [m for m in c.models if getattr(c, m, None) and getattr(c, m).train.algorithm == "fedbuff"]
    require(
        not asynchronous or (c.devices.deadline_seconds == 0 and c.devices.over_commitment == 1),
        f"config devices: {asynchronous} trained by fedbuff wait for nobody; set deadline_seconds=0 and over_commitment=1",
    )
    require(
        p.mechanism != "record_gaussian" or d.population == "stored",
        "config privacy.mechanism='record_gaussian' needs data.population='stored', whose records can be counted",
    )
    require(
        p.canaries == 0 or (p.canaries >= 4 and p.mechanism == "central_gaussian"),
        f"config privacy.canaries={p.canaries} must be 0 (none) or at least 4, and needs privacy.mechanism='central_gaussian'",
    )
    summed = [m for m in c.models if getattr(c, m, None) and getattr(c, m).train.aggregation.secure == "masked"]
    require(
        p.canaries == 0 or not summed,
        f"config privacy.canaries={p.canaries}: {summed} trained with aggregation.secure='masked' have no slots for them; set "
        "canaries=0 or secure='ideal', whose sums are the same",
    )
    if private:
        require(
            p.epsilon > 0,
            f"config privacy.epsilon={p.epsilon} must be positive; for no privacy set privacy.mechanism='none'",
        )
        require(0 <= p.delta < 1, f"config privacy.delta={p.delta} must be in [0, 1); 0 means K^-1.1")
        require(
            p.noise_multiplier >= 0,
            f"config privacy.noise_multiplier={p.noise_multiplier} must be 0 (calibrate) or positive",
        )
        require(
            p.prior_noise_multiplier > 0,
            f"config privacy.prior_noise_multiplier={p.prior_noise_multiplier} must be positive",
        )
    _check_models(c)
    if set(c.models) & set(ONE_SHOTS):
        _check_one_shots(c)
    check_classifier(c.classifier, c.attacks.shadows)
    require(
        e.max_rows >= 100,
        f"config evaluation.max_rows={e.max_rows} must be at least 100 for the metrics to mean anything",
    )
    require(e.synthetic_rows >= 0, f"config evaluation.synthetic_rows={e.synthetic_rows} must be 0 or more")
    rate = e.max_false_positive_rate
    require(0 < rate < 1, f"config evaluation.max_false_positive_rate={rate} must be between 0 and 1, both excluded")
    for rival in e.rivals:
        check_choice("evaluation.rivals", rival, RIVALS)
    require(
        not e.rivals or (private and math.isfinite(p.epsilon)),
        f"config evaluation.rivals={e.rivals} get the run's epsilon, and this run has no finite one; set privacy.mechanism and "
        "privacy.epsilon, or leave rivals empty",
    )
    require(
        not e.rivals or p.mechanism != "record_gaussian",
        f"config evaluation.rivals={e.rivals} hide a client, and privacy.mechanism='record_gaussian' hides a record; leave "
        "rivals empty",
    )
    require(
        not e.rivals or not set(d.domains) & set(STREAMS),
        f"config evaluation.rivals={e.rivals} make tables, and data.domains={d.domains} holds streams; leave rivals empty",
    )
    check_controls(e.controls, e.unknown_share)
    check_choice("evaluation.augmentation", e.augmentation, ("fixed", "chosen"))
    shares = e.real_fractions
    require(
        1.0 in shares and all(0 < share <= 1 for share in shares) and len(set(shares)) == len(shares),
        f"config evaluation.real_fractions={shares} must be different shares in (0, 1], 1.0 among them, such as (1.0, 0.2)",
    )
    check_attacks(c)
