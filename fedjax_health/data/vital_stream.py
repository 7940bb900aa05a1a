"""Vital stream: one client is one patient whose wearable sends heart rate, SpO2, breathing and glucose every five minutes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_health.data import vitals_physiology as physiology
from fedjax_health.data.schema import Column
from fedjax_health.data.simulator import Simulator
from fedjax_health.data.stream_schema import stream_schema
from fedjax_health.types import Array

HOURS = 24  # the longest record
SPAN = 2  # hours of a window
STEP = 5  # minutes between two steps
PER_HOUR = physiology.HOUR // STEP

VITAL_STREAM = stream_schema(
    "vital_stream",
    (
        Column(name="heart_rate", unit="bpm", low=30, high=220, center=75, scale=12, decimals=1),
        Column(name="spo2", unit="%", low=70, high=100, center=97, scale=2, decimals=1),
        Column(name="resp_rate", unit="breaths/min", low=4, high=60, center=16, scale=3, decimals=1),
        Column(name="glucose", unit="mg/dL", low=40, high=400, center=110, scale=20, decimals=1),
    ),
    Column(name="condition", kind="binary", role="label", categories=("stable", "deteriorating")),
    steps=SPAN * PER_HOUR,
    seconds=60.0 * STEP,
)


def _five_minutes(minutes: Array) -> Array:
    """Mean over each step: f32[H, 60] -> f32[H, 12]."""
    return jnp.mean(minutes.reshape(minutes.shape[0], PER_HOUR, STEP), axis=2)


def make_vital_stream() -> Simulator:
    """Simulator of windows of two hours; task "diagnosis", at most 12 windows a client, one after the other.

    The signals are those of `vitals_physiology`: circadian rhythm, meals, bouts of activity that drive heart rate and
    breathing, hours whose state drifts as an AR(1), and a patient of one's own age, fitness, condition, levels and sensors.
    The device adds gain, offset and noise as in `vitals`, and sends means of five minutes; glucose is one reading in five
    minutes, as a continuous sensor gives it. The label is the true state of the window's last hour.

    Returns:
      Simulator; records are windows of 24 steps and 4 channels, in the order of `VITAL_STREAM.inputs`.
    """

    def simulate(key: Array) -> tuple[Array, Array, Array]:
        keys = jax.random.split(key, 5)
        own = jax.random.normal(keys[0], (physiology.NUM_CLIENT_NORMALS,))
        own_uniforms = jax.random.uniform(keys[1], (physiology.NUM_CLIENT_UNIFORMS,))
        patient = physiology.draw_patient(own, own_uniforms, HOURS)
        state = physiology.hour_states(jax.random.normal(keys[2], (HOURS, physiology.NUM_HOUR_NORMALS)))
        uniforms = jax.random.uniform(keys[3], (HOURS, physiology.NUM_HOUR_UNIFORMS))
        noise = jax.random.normal(keys[4], (7, HOURS, physiology.HOUR))
        true, at_risk = physiology.simulate_day(patient, state, uniforms, noise[:3])
        unit, hr_gain, hr_bias, cgm_gain, cgm_bias, _, spo2_bias, rr_bias, *_ = patient.normals[physiology.DEVICE]
        spread = jnp.exp(0.3 * unit)  # how noisy this unit is
        heart = true.heart_rate * (1.0 + 0.01 * hr_gain) + hr_bias + 1.5 * spread * noise[3]
        oxygen = jnp.minimum(true.spo2 + 0.3 * spo2_bias + 0.6 * spread * noise[4], 100.0)
        breath = true.resp_rate + 0.3 * rr_bias + spread * noise[5]
        sugar = true.glucose * (1.0 + 0.02 * cgm_gain) + 1.5 * cgm_bias + 2.0 * spread * noise[6]
        sent = [_five_minutes(heart), _five_minutes(oxygen), _five_minutes(breath), sugar[:, ::STEP]]
        steps = jnp.stack(sent, axis=2).reshape(HOURS // SPAN, VITAL_STREAM.steps, len(sent))
        low = jnp.asarray([c.low for c in VITAL_STREAM.channels], jnp.float32)[None, None, :]
        high = jnp.asarray([c.high for c in VITAL_STREAM.channels], jnp.float32)[None, None, :]
        values = jnp.round(10.0 * jnp.clip(steps, low, high)) / 10.0  # every channel has one decimal
        label = at_risk[SPAN - 1 :: SPAN].astype(jnp.int32)
        return values.reshape(HOURS // SPAN, -1), label, patient.count // SPAN

    return Simulator(VITAL_STREAM, "diagnosis", HOURS // SPAN, simulate)
