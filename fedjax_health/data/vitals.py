"""Vitals: one client is one patient whose sensors reduce a day of one-minute signals to hourly diagnostic features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data import vitals_physiology as physiology
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import Simulator
from fedjax_health.types import Array, UserError

HOUR = physiology.HOUR


def _numeric(name: str, unit: str, low: float, high: float, center: float, scale: float, **extra) -> Column:
    return Column(name=name, unit=unit, low=low, high=high, center=center, scale=scale, **{"decimals": 1, **extra})


VITALS = Schema(
    "vitals",
    (
        _numeric("heart_rate", "bpm", 30, 220, 75, 12),
        _numeric("hr_sd", "bpm", 0, 60, 1.5, 0.6, transform="log1p"),
        _numeric("glucose", "mg/dL", 40, 400, 110, 20, nullable=True),
        _numeric("glucose_sd", "mg/dL", 0, 100, 1.5, 0.6, transform="log1p", nullable=True),
        _numeric("spo2", "%", 70, 100, 97, 2),
        _numeric("spo2_min", "%", 50, 100, 95, 3, at_most="spo2"),
        _numeric("resp_rate", "breaths/min", 4, 60, 16, 3),
        _numeric("temperature", "°C", 33, 42, 36.8, 0.5),
        _numeric("sbp", "mmHg", 60, 260, 120, 15, decimals=0, nullable=True),
        _numeric("dbp", "mmHg", 30, 160, 80, 12, decimals=0, nullable=True, at_most="sbp"),
        _numeric("activity", "steps/min", 0, 250, 2, 1, transform="log1p"),
        Column(
            name="age_band",
            kind="categorical",
            role="group",
            unit="years",
            categories=("18-39", "40-59", "60-74", "75+"),
        ),
        Column(name="sex", kind="binary", role="group", categories=("female", "male")),
        Column(name="condition", kind="binary", role="label", categories=("stable", "deteriorating")),
    ),
)
NUM_NUMERIC = 11


def _size(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _cut(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Cuts one flat draw into consecutive arrays of the given shapes."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(jnp.split(flat, ends[:-1]), shapes, strict=True)]


def _masked(x: Array, valid: Array) -> tuple[Array, Array]:
    """Mean and SD over the valid minutes of each hour: f32[H, 60], bool[H, 60] -> f32[H], f32[H]; 0 where none is."""
    n = jnp.maximum(jnp.sum(valid, axis=1, dtype=jnp.float32), 1.0)
    mean = jnp.sum(jnp.where(valid, x, 0.0), axis=1) / n
    square = jnp.sum(jnp.where(valid, jnp.square(x - mean[:, None]), 0.0), axis=1) / n
    return mean, jnp.sqrt(square)


def _gate(raw: Array, worn: Array, jump: float) -> Array:
    """Device quality gate: worn, and no jump from the minute before (a cadence lock, a lost contact) -> bool[H, 60]."""
    before = jnp.concatenate([raw[:, :1], raw[:, :-1]], axis=1)
    return worn & (jnp.abs(raw - before) < jump)


def _round(values: Array) -> Array:
    """Clips to the public range (a sensor saturates) and rounds to the column's resolution: f32[H, 11]."""
    columns = VITALS.inputs[:NUM_NUMERIC]
    low = jnp.asarray([c.low for c in columns], jnp.float32)[None, :]
    high = jnp.asarray([c.high for c in columns], jnp.float32)[None, :]
    steps = jnp.asarray([10.0 ** (c.decimals or 0) for c in columns], jnp.float32)[None, :]
    return jnp.round(jnp.clip(values, low, high) * steps) / steps


def _features(
    patient: physiology.Patient, true: physiology.Signals, state: Array, uniforms: Array, noise: Array
) -> Array:
    """What the device measures of the true signals, reduced to hourly features: f32[H, 11]."""
    (
        unit,
        hr_gain,
        hr_bias,
        cgm_gain,
        cgm_bias,
        cgm_life,
        spo2_bias,
        rr_bias,
        heat_bias,
        step_gain,
        cuff_fit,
        cuff_bias,
    ) = patient.normals[physiology.DEVICE]
    gap_length = 30.0 * jnp.square(uniforms[:, physiology.GAP_LENGTH])
    worn = physiology.window(30.0 * uniforms[:, physiology.GAP_START], gap_length) < 0.5
    artefact = jnp.abs(noise[6]) > 2.7
    spread = jnp.exp(0.3 * unit)  # how noisy this unit is

    heart = true.heart_rate * (1.0 + 0.01 * hr_gain) + hr_bias + 1.5 * spread * noise[0]
    heart = jnp.where(artefact, 1.5 * heart, heart)
    heart_mean, heart_sd = _masked(heart, _gate(heart, worn, 20.0))

    sugar = true.glucose * (1.0 + 0.02 * cgm_gain) + 1.5 * cgm_bias + 2.0 * spread * noise[1]
    every_five = jnp.broadcast_to((jnp.arange(HOUR) % 5 == 0)[None, :], worn.shape)
    sensor_on = state[:, physiology.CGM_FAULT] + 0.4 * cgm_life < 1.55
    sugar_mean, sugar_sd = _masked(sugar, every_five)

    oxygen = jnp.minimum(true.spo2 + 0.3 * spo2_bias + 0.6 * spread * noise[2], 100.0)
    oxygen_valid = _gate(jnp.where(artefact, oxygen - 15.0, oxygen), worn, 8.0)
    oxygen_mean, _ = _masked(oxygen, oxygen_valid)
    oxygen_min = jnp.minimum(jnp.min(jnp.where(oxygen_valid, oxygen, 100.0), axis=1), oxygen_mean)

    breath, _ = _masked(true.resp_rate + 0.3 * rr_bias + spread * noise[3], worn)
    heat, _ = _masked(true.temperature + 0.06 * heat_bias + 0.1 * spread * noise[4], worn)
    steps, _ = _masked(true.activity * jnp.exp(0.1 * step_gain), worn)

    # A cuff inflates every 20 minutes and fails while the arm moves.
    inflates = jnp.broadcast_to((jnp.arange(HOUR) % 20 == 10)[None, :], worn.shape)
    still = state[:, physiology.CUFF_FAULT] + 0.4 * cuff_fit < 1.5
    read = inflates & (true.activity < 70.0) & still[:, None]
    sbp, _ = _masked(true.sbp + 2.0 * cuff_bias + 3.0 * spread * noise[5], read)
    dbp, _ = _masked(true.dbp + 2.0 * cuff_bias + 3.0 * spread * noise[5], read)

    values = [heart_mean, heart_sd, sugar_mean, sugar_sd, oxygen_mean, oxygen_min, breath, heat, sbp, dbp, steps]
    rounded = _round(jnp.stack(values, axis=1))
    always = jnp.ones_like(sensor_on)
    cuff_on = jnp.any(read, axis=1)
    present = [always, always, sensor_on, sensor_on, always, always, always, always, cuff_on, cuff_on, always]
    # Rows beyond the count are no records; a NaN there could only leak through a masked sum.
    beyond = jnp.arange(rounded.shape[0]) >= patient.count
    return jnp.where(jnp.stack(present, axis=1) | beyond[:, None], rounded, jnp.nan)


def make_vitals(minutes: int = 1440) -> Simulator:
    """Simulator of patients with wearable and implantable sensors; task "diagnosis", H = minutes / 60 rows.

    Each client has its own age band, sex, fitness, chronic condition, baselines, sensor gains and offsets, and its own
    number of hours on record (6 … H). Eight one-minute signals are simulated and reduced to hourly features on the
    device; only these leave it. The label is the true state of the hour, which the sensors see only approximately.

    Args:
      minutes: length of the record, a multiple of 60 from 360 to 1440.

    Returns:
      Simulator; missing cells (glucose, blood pressure) are NaN.

    Raises:
      UserError: minutes is not such a number.
    """
    if minutes % HOUR or not 6 * HOUR <= minutes <= 1440:
        raise UserError(f"vitals: minutes = {minutes} is not a multiple of 60 from 360 to 1440; use 1440 for a day")
    hours = minutes // HOUR

    def simulate(key: Array) -> tuple[Array, Array, Array]:
        # One call per distribution: every further call costs compile time, and splitting one draw costs none.
        normal_key, uniform_key = jax.random.split(key)
        shapes = ((physiology.NUM_CLIENT_NORMALS,), (hours, physiology.NUM_HOUR_NORMALS), (10, hours, HOUR))
        own, normals, noise = _cut(jax.random.normal(normal_key, (_size(shapes),), jnp.float32), shapes)
        shapes = ((physiology.NUM_CLIENT_UNIFORMS,), (hours, physiology.NUM_HOUR_UNIFORMS))
        own_uniforms, uniforms = _cut(jax.random.uniform(uniform_key, (_size(shapes),), jnp.float32), shapes)
        patient = physiology.draw_patient(own, own_uniforms, hours)
        state = physiology.hour_states(normals)
        true, at_risk = physiology.simulate_day(patient, state, uniforms, noise[:3])
        measured = _features(patient, true, state, uniforms, noise[3:])
        who = jnp.stack([patient.age, patient.sex]).astype(jnp.float32)
        values = jnp.concatenate([measured, jnp.broadcast_to(who[None, :], (hours, 2))], axis=1)
        return values, at_risk.astype(jnp.int32), patient.count

    return Simulator(VITALS, "diagnosis", hours, simulate)
