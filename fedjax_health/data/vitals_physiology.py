"""One simulated patient: who they are, the true state of each hour, and the true one-minute signals of a day."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_health.types import Array

HOUR = 60  # minutes
AGE_SHARES = (0.20, 0.30, 0.30, 0.20)  # of the four age bands
CHRONIC_SHARES = (0.08, 0.18, 0.34, 0.50)  # share with a chronic condition, by age band
DRIFT = 0.8  # correlation of an hour's state with the hour before

# Positions in the client's normals.
FIT, LEVEL, TENDENCY, CHRONOTYPE, PULSE = 0, slice(1, 7), 7, 8, 9
MEAL_TIME, MEAL_SIZE, START, DEVICE = slice(10, 13), slice(13, 16), 16, slice(17, 29)
NUM_CLIENT_NORMALS, NUM_CLIENT_UNIFORMS = 29, 4
# Positions on the signal axis of the client's levels and of the hourly deviations.
RATE, GLUCOSE, OXYGEN, BREATH, HEAT, PRESSURE = range(6)
# Positions in the hourly normals: drifting states first, then draws that are new in each hour.
SEVERITY, DEVIATION, EXERTION, CGM_FAULT, CUFF_FAULT, ADJUDICATION = 0, slice(1, 7), 7, 8, 9, 10
NUM_DRIFTING, NUM_HOUR_NORMALS = 10, 11
# Positions in the hourly uniforms.
BOUT_START, BOUT_LENGTH, BOUT_CHANCE, GAP_START, GAP_LENGTH, DIP_START, DIP_DEPTH, DIP_CHANCE = range(8)
NUM_HOUR_UNIFORMS = 8


class Patient(NamedTuple):
    """Latent constants of one patient.

    Attributes:
      age: i32[], age band 0 … 3.
      sex: i32[], 0 female, 1 male.
      chronic: f32[], 1 with a chronic condition, else 0.
      start: f32[], clock minute at which the device is put on.
      count: i32[], hours on record.
      normals: f32[29], standard normal draws by the positions above.
    """

    age: Array
    sex: Array
    chronic: Array
    start: Array
    count: Array
    normals: Array


class Signals(NamedTuple):
    """True one-minute signals, f32[hours, 60] each; what an ideal sensor would read.

    Attributes:
      activity: steps/min.
      heart_rate: bpm.
      glucose: mg/dL in the interstitial fluid (blood glucose, delayed).
      spo2: %.
      resp_rate: breaths/min.
      temperature: °C.
      sbp, dbp: mmHg, systolic and diastolic.
    """

    activity: Array
    heart_rate: Array
    glucose: Array
    spo2: Array
    resp_rate: Array
    temperature: Array
    sbp: Array
    dbp: Array


def draw_patient(normals: Array, uniforms: Array, hours: int) -> Patient:
    """Makes who the patient is and when the device is worn from fresh draws.

    Args:
      normals: f32[29], standard normal draws by the positions above.
      uniforms: f32[4], for age, sex, chronic condition, hours on record.
      hours: H, the most hours on record, >= 6.

    Returns:
      Patient; count lies in [6, hours].
    """
    bands = jnp.asarray(np.cumsum(AGE_SHARES)[:-1], jnp.float32)
    age = jnp.sum(uniforms[0] > bands).astype(jnp.int32)
    chronic = (uniforms[2] < jnp.asarray(CHRONIC_SHARES, jnp.float32)[age]).astype(jnp.float32)
    worn = 6 + jnp.floor((hours - 5) * jnp.power(uniforms[3], 0.7)).astype(jnp.int32)
    start = jnp.mod(HOUR * jnp.round(6.5 + 2.0 * normals[START]), 1440.0)
    return Patient(age, (uniforms[1] < 0.5).astype(jnp.int32), chronic, start, jnp.minimum(worn, hours), normals)


def hour_states(normals: Array) -> Array:
    """Latent states of the hours: a stationary AR(1), x[h] = ρ x[h-1] + sqrt(1-ρ²) e[h], but for the last column.

    Args:
      normals: f32[H, 11], standard normal draws by the positions above.

    Returns:
      f32[H, 11], unit variance; the first ten drift, the adjudication error is new in each hour.
    """
    lag = np.subtract.outer(np.arange(normals.shape[0]), np.arange(normals.shape[0]))
    weight = np.where(lag >= 0, DRIFT ** np.maximum(lag, 0) * np.sqrt(1 - DRIFT**2), 0.0)
    weight[:, 0] /= np.sqrt(1 - DRIFT**2)  # the first hour starts in the stationary distribution
    drifting = jnp.asarray(weight, jnp.float32) @ normals[:, :NUM_DRIFTING]
    return jnp.concatenate([drifting, normals[:, NUM_DRIFTING:]], axis=1)


def respond(target: Array, minutes: float) -> Array:
    """First-order response of a signal to its target, y' = (target - y) / τ, as a causal exponential filter.

    For glucose τ is the delay between blood and the tissue a sensor sits in, 5 to 12 minutes (Keenan et al., 2009).
    A product with a constant matrix over this hour and the one before; a scan over 1,440 minutes is far slower. The
    kernel is cut off after an hour or more (under 2 % of its mass for τ <= 15 min) and normalised.

    Args:
      target: f32[H, 60].
      minutes: τ, the time constant in minutes.

    Returns:
      f32[H, 60]; before the first minute the target is taken to be constant.
    """
    lag = HOUR + np.arange(HOUR)[None, :] - np.arange(2 * HOUR)[:, None]
    weight = np.where(lag >= 0, np.exp(-np.maximum(lag, 0) / minutes), 0.0)
    weight /= weight.sum(0, keepdims=True)
    before = jnp.concatenate([jnp.broadcast_to(target[:1, :1], (1, HOUR)), target[:-1]])
    return jnp.concatenate([before, target], axis=1) @ jnp.asarray(weight, jnp.float32)


def rhythm(start: Array, peak: Array, hours: int) -> Array:
    """Circadian wave cos(2π (clock - peak) / 1440), by angle addition of hours and minutes.

    Args:
      start: f32[], clock minute of the first record.
      peak: f32[], clock minute of the maximum.
      hours: H.

    Returns:
      f32[H, 60] in [-1, 1].
    """
    turn = 2 * np.pi / 1440
    hour = turn * (start - peak + HOUR * jnp.arange(hours, dtype=jnp.float32))[:, None]
    minute = turn * np.arange(HOUR)[None, :]
    cos_minute, sin_minute = jnp.asarray(np.cos(minute), jnp.float32), jnp.asarray(np.sin(minute), jnp.float32)
    return jnp.cos(hour) * cos_minute - jnp.sin(hour) * sin_minute


def meals(patient: Patient, hours: int) -> Array:
    """Glucose above fasting after three meals: sum of A (x/τ) exp(1 - x/τ), x minutes after the meal, τ = 40 min.

    The shape is two-compartment gut absorption (Hovorka et al., 2004).

    Args:
      patient: whose meals.
      hours: H.

    Returns:
      f32[H, 60], mg/dL.
    """
    usual = jnp.asarray([7.5 * HOUR, 12.5 * HOUR, 19.0 * HOUR], jnp.float32)
    time = usual + 40.0 * patient.normals[MEAL_TIME] + 45.0 * patient.normals[CHRONOTYPE]
    size = (20.0 + 8.0 * patient.chronic) * jnp.exp(0.35 * patient.normals[MEAL_SIZE])
    clock = patient.start + jnp.arange(hours * HOUR, dtype=jnp.float32)
    since = jnp.mod(clock[:, None] - time[None, :], 1440.0) / 40.0
    return jnp.sum(size[None, :] * since * jnp.exp(1.0 - since), axis=1).reshape(hours, HOUR)


def window(start: Array, length: Array) -> Array:
    """Minutes of each hour inside a window.

    Args:
      start, length: f32[H], minutes.

    Returns:
      f32[H, 60], 1 inside [start, start + length), else 0.
    """
    minute = jnp.arange(HOUR, dtype=jnp.float32)[None, :]
    return ((minute >= start[:, None]) & (minute < (start + length)[:, None])).astype(jnp.float32)


def concern(patient: Patient, effort: Array) -> Array:
    """Direction in which each signal's deviation is a bad sign, which depends on the context.

    A fast heart and high glucose are bad signs at rest, slow and low ones under effort (blunted response, exercise
    hypoglycaemia); pressure should not rise in the old nor fall in the young; fever is the sign of the young, a low
    temperature that of the old. Low oxygen saturation and fast breathing are always bad. A stylised rule, made so that
    the diagnosis needs interactions; not a clinical score.

    Args:
      patient: gives the age band.
      effort: f32[H], 0 at rest … 1 in an active hour.

    Returns:
      f32[H, 6], on the signal axis (heart rate, glucose, oxygen deficit, breathing, temperature, pressure).
    """
    rest = 1.0 - 1.8 * effort
    one = jnp.ones_like(rest)
    old = (patient.age.astype(jnp.float32) - 1.5) / 1.5 * one
    return jnp.stack([0.9 * rest, 0.8 * rest, 0.5 * one, 0.5 * one, -0.5 * old, 0.9 * old], axis=1)


def simulate_day(patient: Patient, state: Array, uniforms: Array, noise: Array) -> tuple[Signals, Array]:
    """True signals of a day and the true diagnosis of each of its hours.

    Severity is an hour's latent tendency to be ill; q = tanh(2.5 severity) pushes every signal along `concern`. The
    diagnosis reads the resulting true state, s = concern · deviation - 0.3 rate · pressure, not the severity.

    Args:
      patient: whose day.
      state: f32[H, 11], from `hour_states`.
      uniforms: f32[H, 8], draws by the positions above.
      noise: f32[3, H, 60], standard normal, for activity, heart rate and breathing.

    Returns:
      (signals, at_risk): Signals and bool[H].
    """
    hours = state.shape[0]
    peak = 15.5 * HOUR + 45.0 * patient.normals[CHRONOTYPE]
    wave = rhythm(patient.start, peak, hours)
    awake = jnp.clip(0.5 + 2.5 * (wave + 0.4), 0.0, 1.0)

    fit = patient.normals[FIT] - 0.6 * patient.chronic
    pace = 55.0 * jnp.exp(0.35 * state[:, EXERTION] + 0.2 * fit)
    out = (uniforms[:, BOUT_CHANCE] < 0.55).astype(jnp.float32)
    bout = window(40.0 * uniforms[:, BOUT_START], 8.0 + 40.0 * uniforms[:, BOUT_LENGTH]) * (out * pace)[:, None]
    activity = awake * (4.0 * jnp.abs(noise[0]) + bout)
    strain = respond(activity, 4.0)
    effort = 1.0 - jnp.exp(-jnp.mean(activity, axis=1) / 14.0)

    direction = concern(patient, effort)
    severity = 0.75 * state[:, SEVERITY] + 0.6 * patient.normals[TENDENCY] + 0.25 * patient.chronic - 0.07
    push = jnp.tanh(2.5 * severity)
    own = 0.45 * patient.normals[LEVEL]
    deviation = own[None, :] + 0.45 * state[:, DEVIATION] + 1.15 * push[:, None] * direction
    score = jnp.sum(direction * deviation, axis=1) - 0.3 * deviation[:, RATE] * deviation[:, PRESSURE]
    at_risk = score + 0.2 * state[:, ADJUDICATION] > 0.0

    held = jnp.broadcast_to(deviation[:, :, None], (hours, 6, HOUR))
    heart = 67.5 - 2.0 * fit + 2.5 * wave + 10.15 * held[:, RATE] + (0.32 - 0.04 * fit) * strain + 2.0 * noise[1]
    dawn = 4.0 * patient.chronic
    blood = 104.0 + dawn + meals(patient, hours) + 16.8 * held[:, GLUCOSE] - 0.08 * strain
    dip_chance = 0.12 + 0.1 * patient.chronic + 0.15 * push
    dip_depth = (uniforms[:, DIP_CHANCE] < dip_chance).astype(jnp.float32) * (3.0 + 6.0 * uniforms[:, DIP_DEPTH])
    middle = 5.0 + 50.0 * uniforms[:, DIP_START]
    tent = jnp.maximum(1.0 - jnp.abs(jnp.arange(HOUR, dtype=jnp.float32)[None, :] - middle[:, None]) / 5.0, 0.0)
    deficit = jnp.logaddexp(0.0, 2.07 + 2.45 * held[:, OXYGEN]) + tent * dip_depth[:, None]
    breath = 15.5 + 2.2 * held[:, BREATH] + 0.06 * strain - 0.6 * (1.0 - awake) + 0.8 * noise[2]
    heat = 36.65 + 0.25 * wave + 0.35 * held[:, HEAT] + 0.003 * strain
    age = patient.age.astype(jnp.float32)
    sbp = 115.0 + 4.0 * age + 4.0 * wave + 13.0 * held[:, PRESSURE] + 0.15 * strain
    pulse = 0.34 * sbp * jnp.exp(0.1 * (age - 1.5) + 0.12 * patient.normals[PULSE])
    return Signals(
        activity=activity,
        heart_rate=respond(heart, 3.0),
        glucose=respond(blood, 12.0),
        spo2=100.0 - deficit,
        resp_rate=respond(breath, 2.0),
        temperature=respond(heat, 15.0),
        sbp=sbp,
        dbp=sbp - pulse,
    ), at_risk
