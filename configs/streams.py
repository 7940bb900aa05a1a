"""Windows of raw sensor streams: two hours of simulated vital signs, or 32 seconds of a real wearable.

python -m launch.main --config=configs/streams.py            2,000 simulated patients, no mechanism
python -m launch.main --config=configs/streams.py:smoke      the same stages in miniature
python -m launch.main --config=configs/streams.py:non_eeg --config.data.path=FOLDER  20 volunteers at rest and under stress

docs/streams.md has the figures. Privacy is that of every run: --config.privacy.mechanism=central_gaussian with more clients,
and for the GAN an l2_clip_norm, which it has not here.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """Streams without a mechanism.

    Args:
      variant: "", "smoke" or "non_eeg".
    """
    config = base.get_config()
    config.name = "streams"
    config.data.domains = ("vital_stream",)
    config.data.num_clients = 2_000
    config.data.validation_fraction = config.data.test_fraction = 0.15
    config.privacy.mechanism = "none"
    vae, gan = config.vae, config.wgan_gp
    # widths of the convolutions, the finest first
    vae.hidden, vae.latent, vae.kl_weight = (16, 64), 8, 0.5
    vae.train.update(
        rounds=1_200,
        rounds_per_chunk=50,
        batch_size=12,
        client_learning_rate=0.1,
        l2_clip_norm=10.0,
        step_clip_norm=100.0,
    )
    # one window of many patients a round, no momentum, rates that fall to 0: as for tables (configs/vitals.py), but faster
    gan.hidden, gan.latent, gan.generator_steps, gan.generator_learning_rate = (16, 64), 32, 1, 1.2e-3
    gan.train.update(rounds=10_000, rounds_per_chunk=500, batch_size=1, local_steps=1, cohort=720, ema_decay=0.999)
    gan.train.update(client_learning_rate=1.0, step_clip_norm=0.0, l2_clip_norm=1e6)
    gan.train.update(server_optimizer="rmsprop", server_learning_rate=8e-3, server_schedule="cosine")
    config.classifier.train.update(rounds=200, batch_size=12)
    if variant == "smoke":
        config.name = "streams_smoke"
        config.quick_compile = True
        config.data.num_clients = 200
        config.evaluation.max_rows = 300
        for section in (vae, gan, config.classifier):
            section.hidden = (8, 16)
            section.train.update(rounds=10, rounds_per_chunk=5, cohort=20)
    elif variant == "non_eeg":
        config.name = "streams_non_eeg"
        config.data.domains = ("non_eeg",)
        config.data.validation_fraction, config.data.test_fraction, config.data.audit_fraction = 0.15, 0.25, 0.1
        for section in (vae, gan, config.classifier):
            section.train.update(cohort=12, sampler="full", batch_size=32)
        vae.train.rounds, gan.train.rounds = 400, 3_000  # twelve people are soon known by heart
    elif variant:
        raise ValueError(f"configs/streams.py knows no variant {variant!r}; known: smoke, non_eeg")
    return config
