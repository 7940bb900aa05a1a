"""Configs that break one cross-field rule each, and the sentence that is due; see `test_checks`."""

from __future__ import annotations

from fedjax_health import checks

OPEN = {"privacy.mechanism": "none"}  # no privacy: the rules of the accountant are silent
RECORDS = {"privacy.mechanism": "record_gaussian"} | {f"{name}.train.local": "epochs" for name in checks.MODELS}
LOCAL = {"privacy.mechanism": "local_gaussian"}
CORRELATED = {"privacy.mechanism": "correlated_gaussian"}
DISTRIBUTED = {"privacy.mechanism": "distributed_gaussian"}
COPULA = {"models": ("copula",)}
VOTED, INFINITE = {"models": ("pategan",)}, float("inf")


def train(**changes):
    """Changes of the VAE's training; a double underscore is a dot."""
    return {f"vae.train.{name.replace('__', '.')}": value for name, value in changes.items()}


IDEAL, MASKED = train(aggregation__secure="ideal"), train(aggregation__secure="masked")

# (changes, a part of the sentence); the base config itself is valid, so the sentence is of what changes
RULES = [
    ({"classifier.class_weights": "balanced", "attacks.shadows": 8}, "which shadows do not ask for"),
    (train(rounds=601), "must be a multiple of rounds_per_chunk=50"),
    (train(algorithm="scaffold"), "is exact for plain SGD only"),
    (train(algorithm="scaffold", step_clip_norm=0.0, client_optimizer="adam"), "is exact for plain SGD only"),
    (train(algorithm="mime_lite"), "is exact for plain SGD only"),
    (OPEN | train(algorithm="fednova"), "is exact for plain SGD only"),
    # aggregation
    (OPEN | train(aggregation__rule="median", aggregation__weighting="examples"), "counts every client once"),
    (OPEN | train(aggregation__rule="krum", aggregation__weighting="examples"), "counts every client once"),
    (OPEN | train(aggregation__rule="fixed_point", aggregation__weighting="examples"), "counts every client once"),
    (OPEN | train(aggregation__rule="fixed_point", l2_clip_norm=INFINITE), "needs a finite l2_clip_norm"),
    (OPEN | train(aggregation__rule="fixed_point", aggregation__attack="sign_flip"), "knows no attack"),
    (OPEN | train(algorithm="fedbuff", aggregation__rule="median"), "weights updates by staleness"),
    (train(aggregation__assumed_attackers=0.5), "must be in [0, 0.5)"),
    # secure aggregation
    (train(aggregation__secure_bits=1), "must be 2 to 24"),
    (train(aggregation__secure_bits=25), "must be 2 to 24"),
    (train(aggregation__secure_degree=-2), "or positive and even"),
    (train(aggregation__secure_degree=5), "or positive and even"),
    (OPEN | MASKED | train(aggregation__rule="median"), "the server learns a sum only"),
    (
        OPEN | IDEAL | train(aggregation__weighting="examples"),
        "weighting='examples' does not go with aggregation.secure",
    ),
    (OPEN | IDEAL | train(aggregation__attack="label_flip"), "the server no longer sees"),
    (OPEN | IDEAL | train(l2_clip_norm=INFINITE), "which the grid is made for"),
    (OPEN | IDEAL | train(algorithm="fednova", step_clip_norm=0.0), "one with plain sums of a round"),
    (OPEN | IDEAL | train(algorithm="fedbuff"), "one with plain sums of a round"),
    (OPEN | IDEAL | train(hierarchy__institutions=4), "institutions=4 does not go with aggregation.secure='ideal'"),
    (MASKED | train(compression__sparsify="top_k"), "masks are dense"),
    (MASKED | train(compression__bits=8), "secure_bits is the quantiser"),
    (MASKED | train(compression__sign=True), "secure_bits is the quantiser"),
    (
        MASKED | train(compression__sparsify="rand_k", compression__error_feedback=True),
        "sparsify='rand_k' does not go with aggregation.secure='masked'",
    ),
    (MASKED | train(compression__error_feedback=True), "rounding is unbiased"),
    (RECORDS | MASKED, "is not accounted for with privacy.mechanism='record_gaussian'"),
    (MASKED | {"privacy.canaries": 100}, "have no slots for them"),
    # compression
    (train(compression__sign=True, compression__bits=4), "exclude each other"),
    (OPEN | train(compression__rotate=True, algorithm="fedbuff"), "mixes their coordinates"),
    (OPEN | train(compression__rotate=True, aggregation__rule="median"), "mixes their coordinates"),
    (OPEN | train(compression__rotate=True, aggregation__rule="trimmed_mean"), "mixes their coordinates"),
    (OPEN | train(algorithm="fednova", step_clip_norm=0.0, compression__bits=8), "fednova sends a number of steps"),
    (OPEN | train(algorithm="fednova", step_clip_norm=0.0, compression__sparsify="top_k"), "fednova sends a number"),
    # hierarchy
    (OPEN | train(hierarchy__institutions=4, algorithm="fedbuff"), "needs fedavg or fedprox"),
    (OPEN | train(hierarchy__institutions=4, algorithm="scaffold", step_clip_norm=0.0), "needs fedavg or fedprox"),
    (OPEN | train(hierarchy__institutions=4, aggregation__rule="median"), "needs fedavg or fedprox"),
    (OPEN | train(hierarchy__institutions=4, server_schedule="cosine"), "steps at meetings"),
    (OPEN | train(hierarchy__institutions=4, aggregation__attack="alie"), "needs fedavg or fedprox"),
    (OPEN | train(hierarchy__institutions=4, compression__down_bits=8), "institutions send models as they are"),
    (OPEN | train(algorithm="fedbuff", compression__down_bits=8), "fedbuff has no institutions"),
    # adaptive clipping
    (train(clip_quantile=0.5, algorithm="scaffold", step_clip_norm=0.0), "does not go with clip_quantile=0.5"),
    (OPEN | train(clip_quantile=0.5, algorithm="fedbuff"), "set 'fedavg' or 'fedprox', or clip_quantile to 0"),
    (OPEN | train(clip_quantile=0.5, l2_clip_norm=INFINITE), "set the finite bound to start from"),
    (OPEN | train(clip_quantile=0.5, hierarchy__institutions=4), "hierarchy.institutions=4 does not go with"),
    (OPEN | train(clip_quantile=0.5, aggregation__rule="krum"), "others know no mean of the clients' bits"),
    (train(clip_quantile=0.5, compression__sparsify="rand_k"), "compression.sparsify='rand_k' does not go with"),
    (train(clip_quantile=0.5, compression__sign=True), "compression.sign=True does not go with"),
    (
        train(clip_quantile=0.5, compression__bits=8, compression__error_feedback=True),
        "compression.error_feedback=True does not go with",
    ),
    (train(clip_quantile=0.5, compression__bits=4), "set 0 or at least 8, or clip_quantile to 0"),
    (RECORDS | train(clip_quantile=0.5), "privacy.mechanism='record_gaussian' does not give"),
    # what the accountant covers
    (train(aggregation__weighting="examples"), "a weight may not depend on data"),
    (train(aggregation__rule="median"), "is not covered by the accountant"),
    (train(aggregation__rule="fixed_point"), "is not covered by the accountant"),
    (train(aggregation__attack="label_flip"), "is not covered by the accountant"),
    (train(sampler="fixed"), "sampler='fixed' is not covered by the accountant"),
    (train(algorithm="fednova", step_clip_norm=0.0), "algorithm='fednova' is not covered by the accountant"),
    (train(algorithm="fedbuff"), "algorithm='fedbuff' is not covered by the accountant"),
    (train(hierarchy__institutions=4), "hierarchy.institutions=4 is not covered by the accountant"),
    (train(l2_clip_norm=INFINITE), "l2_clip_norm=inf is not covered by the accountant"),
    (RECORDS | train(algorithm="fedprox"), "others touch a record more than once a step"),
    (RECORDS | train(local="steps"), "a batch may hold a record only once"),
    (LOCAL | train(local="epochs"), "which the server sees, may not depend on its records"),
    (LOCAL | train(aggregation__rule="fixed_point"), "is not covered by the accountant"),
    (LOCAL | train(sampler="fixed"), "sampler='fixed' is not covered by the accountant"),
    (LOCAL | train(clip_quantile=0.5), "privacy.mechanism='local_gaussian' does not give"),
    (LOCAL | {"privacy.canaries": 100}, "needs privacy.mechanism='central_gaussian'"),
    (DISTRIBUTED, "the noise hides in a sum only"),
    (DISTRIBUTED | train(aggregation__secure="ideal", local="epochs"), "may not depend on its records"),
    (
        DISTRIBUTED | train(aggregation__secure="ideal", clip_quantile=0.5),
        "mechanism='distributed_gaussian' does not give",
    ),
    (DISTRIBUTED | {"privacy.canaries": 100}, "needs privacy.mechanism='central_gaussian'"),
    (CORRELATED | {"privacy.noise_bands": 1}, "with 1 that is 'central_gaussian'"),
    (CORRELATED | train(sampler="full"), "its clients take turns in groups"),
    (CORRELATED | train(clip_quantile=0.5), "privacy.mechanism='correlated_gaussian' does not"),
    (
        CORRELATED | train(aggregation__secure="ideal"),
        "is not accounted for with privacy.mechanism='correlated_gaussian'",
    ),
    (CORRELATED | {"privacy.canaries": 100}, "needs privacy.mechanism='central_gaussian'"),
    (RECORDS | {"wgan_gp.placement": "joint"}, "would noise a generator that reads no record"),
    ({"acgan.discriminator_steps": "adapt"}, "is not one of fixed, adaptive; did you mean 'adaptive'?"),
    ({"medgan.placement": "joint", "medgan.discriminator_steps": "adaptive"}, "needs placement='split'"),
    ({"diffusion.steps": 1}, "diffusion.steps=1 must be from 2 to 1000"),
    ({"pategan.teachers": 1}, "pategan.teachers=1 must be at least 2"),
    *((VOTED | other, "set it to 'central_gaussian' or 'none'") for other in (LOCAL, RECORDS, CORRELATED)),
    (VOTED | {"pategan.train.cohort": 300}, "cohort=300 must be a multiple of teachers=400"),
    (VOTED | OPEN | {"devices.over_commitment": 1.2}, "nobody is asked in a client's place"),
    (VOTED | {"pategan.train.aggregation.secure": "ideal"}, "the server holds the teachers"),
    (VOTED | {"privacy.canaries": 100}, "of which pategan has none"),
    (RECORDS | {"data.population": "procedural"}, "whose records can be counted"),
    ({"privacy.canaries": 3}, "must be 0 (none) or at least 4"),
    (OPEN | {"privacy.canaries": 100}, "needs privacy.mechanism='central_gaussian'"),
    # devices
    ({"devices.shares": (0.5, 0.5, 0.5, -0.5)}, "four shares that sum to 1"),
    ({"devices.shares": (0.25, 0.25, 0.25, 0.26)}, "four shares that sum to 1"),
    ({"devices.over_commitment": 1.2}, "which the accountant does not cover"),
    ({"devices.availability": "diurnal"}, "without a deadline"),
    (OPEN | train(algorithm="fedbuff") | {"devices.deadline_seconds": 60.0}, "wait for nobody"),
    (OPEN | train(algorithm="fedbuff") | {"devices.over_commitment": 1.2}, "wait for nobody"),
    (OPEN | {"privacy.randomness": "system"}, "would hide noise that is not there"),
    # the one-shot copula
    (COPULA | {"data.domains": ("vital_stream",)}, "no windows such as those of data.domains=['vital_stream']"),
    (COPULA | LOCAL, "privacy.mechanism='local_gaussian' does not allow; leave it out"),
    (COPULA | {"data.population": "procedural"}, "data.population='procedural' has none to be asked"),
    (COPULA | {"data.representation": "public"}, "space of data.representation='copula' and not 'public'"),
    (COPULA | {"data.representation": "scores"}, "space of data.representation='copula' and not 'scores'"),
    ({"data.domains": ("vital_stream",), "vae.decoder": "causal"}, "goes through time as it is"),
    ({"data.domains": ("vital_stream",), "wgan_gp.generator": "causal"}, "is for tables"),
    # rivals
    (OPEN | {"evaluation.rivals": ("aim",)}, "this run has no finite one"),
    ({"privacy.epsilon": INFINITE, "evaluation.rivals": ("aim",)}, "this run has no finite one"),
    (RECORDS | {"evaluation.rivals": ("aim",)}, "hides a record"),
    ({"data.domains": ("vital_stream",), "evaluation.rivals": ("aim",)}, "holds streams"),
    # data
    ({"data.representation": "copula", "data.population": "procedural"}, "population='procedural' does not have"),
    (LOCAL | {"data.representation": "scores"}, "mechanism='local_gaussian' does not allow"),
    ({"data.domains": ("wustl_ehms",), "data.population": "procedural"}, "is for simulated domains only"),
    (
        {"data.domains": ("table",), "data.validation_fraction": 0.4, "data.test_fraction": 0.6},
        "leave clients to train",
    ),
    # evaluation
    ({"evaluation.real_fractions": (0.2,)}, "1.0 among them"),
    ({"evaluation.real_fractions": (1.0, 0.0)}, "different shares in (0, 1]"),
    ({"evaluation.real_fractions": (1.0, 0.2, 0.2)}, "different shares in (0, 1]"),
]
