"""Threats: one client is one health-IoT device whose network flows are benign or one of six kinds of attack."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.simulator import Simulator
from fedjax_health.types import Array

FLOWS = 40  # H, the most flows of a device
ATTACKS = ("benign", "flooding", "scanning", "spoofing", "data_alteration", "brute_force", "replay")
DEVICE_CLASSES = ("wearable", "infusion_pump", "patient_monitor", "glucose_implant", "gateway")
PROTOCOLS = ("mqtt", "coap", "https", "tcp", "udp")


# What counters of one flow have to do with one another: a packet has 40 to 1500 bytes, and the means follow.
EQUATIONS = {
    "bytes_out": "min(max(bytes_out, 40 * packets_out), 1500 * packets_out)",
    "bytes_in": "min(max(bytes_in, 40 * packets_in), 1500 * packets_in)",
    "mean_packet_size": "(bytes_out + bytes_in) / (packets_out + packets_in)",
    "mean_interarrival": "1000 * duration / (packets_out + packets_in)",
}


def _log(name: str, unit: str, low: float, high: float, center: float, scale: float, decimals: int) -> Column:
    return Column(
        name=name, unit=unit, low=low, high=high, center=center, scale=scale, transform="log1p", decimals=decimals,
        equation=EQUATIONS.get(name, ""),
    )  # fmt: skip


THREATS = Schema(
    "threats",
    (
        _log("duration", "s", 0, 36_000, 2, 1, 2),
        _log("bytes_out", "B", 40, 1e9, 8, 2, 0),
        _log("bytes_in", "B", 40, 1e9, 8, 2, 0),
        _log("packets_out", "packets", 1, 1e6, 3, 1.5, 0),
        _log("packets_in", "packets", 1, 1e6, 3, 1.5, 0),
        Column(
            name="mean_packet_size",
            unit="B",
            low=40,
            high=1500,
            center=200,
            scale=150,
            decimals=1,
            equation=EQUATIONS["mean_packet_size"],
        ),
        _log("mean_interarrival", "ms", 0, 600_000, 5, 1.5, 1),
        _log("jitter", "ms", 0, 600_000, 4, 1.5, 1),
        _log("distinct_ports", "ports", 1, 1024, 1, 0.5, 0),
        _log("failed_logins", "logins", 0, 100, 0.2, 0.5, 0),
        Column(name="payload_entropy", unit="bit/B", low=0, high=8, center=6.5, scale=1.5, decimals=2),
        _log("payload_deviation", "SD", 0, 100, 0.7, 0.4, 2),
        Column(name="protocol", kind="categorical", categories=PROTOCOLS),
        Column(name="encrypted", kind="binary", categories=("no", "yes")),
        Column(name="device_class", kind="categorical", role="group", categories=DEVICE_CLASSES),
        Column(name="attack", kind="categorical", role="label", categories=ATTACKS),
    ),
)
NUM_NUMERIC = 12


class Traits(NamedTuple):
    """Where traffic lies, on an additive scale; rows of the tables below, their sums, and one flow's state.

    Attributes:
      duration: log seconds.
      rate: log packets/s.
      size: log bytes of payload a packet.
      reply: log-odds of a packet being incoming.
      jitter: log of jitter over mean interarrival.
      ports, logins: expected further ports and failed logins.
      disorder: log of (8 - entropy), bits.
      plain: log-odds of the flow not being encrypted.
      deviation: log SDs of the reported vital from its recent mean.
    """

    duration: Array
    rate: Array
    size: Array
    reply: Array
    jitter: Array
    ports: Array
    logins: Array
    disorder: Array
    plain: Array
    deviation: Array


# Usual traffic of a device class; columns as in Traits.
USUAL = np.array(
    [
        [1.8, 0.9, 4.6, -0.6, -0.7, 0.10, 0.03, 1.15, -1.2, 0.0],
        [2.6, 0.4, 4.9, -0.2, -1.0, 0.10, 0.08, 1.20, -0.6, -0.3],
        [2.4, 2.0, 5.5, -0.5, -0.9, 0.20, 0.08, 1.10, -1.0, 0.1],
        [1.2, 0.3, 4.0, -0.3, -0.8, 0.05, 0.02, 1.20, -1.5, 0.0],
        [2.9, 2.4, 5.9, 0.2, -0.4, 0.80, 0.15, 1.05, -0.4, 0.1],
    ]
)
# What an attack, or a harmless event that resembles one, adds at strength 1; columns as in Traits.
SIGNATURE = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # benign
        [-0.8, 3.2, -0.9, -1.5, -0.5, 0.0, 0.0, 0.1, 0.4, 0.0],  # flooding
        [-1.4, 0.0, -0.8, -0.4, 0.3, 4.5, 0.1, 0.2, 0.8, 0.0],  # scanning
        [0.0, 0.4, 0.2, -0.6, 1.0, 0.3, 0.3, 0.3, 1.6, 0.7],  # spoofing
        [0.0, 0.0, 0.2, 0.0, 0.4, 0.0, 0.1, 0.3, 0.5, 1.3],  # data_alteration
        [-0.9, 0.7, -0.4, 0.5, 0.0, 0.1, 4.0, 0.0, 0.0, 0.0],  # brute_force
        [0.0, 0.3, 0.0, -0.3, -1.1, 0.0, 0.0, -0.2, 0.2, -1.1],  # replay
        [-0.3, 1.4, -0.2, -0.2, -0.2, 0.0, 0.0, 0.0, 0.0, 0.0],  # telemetry burst
        [1.4, 0.5, 0.8, 1.6, 0.0, 0.1, 0.0, -0.4, 0.0, 0.0],  # firmware update
        [-0.6, 0.0, -0.3, 0.0, 0.2, 2.5, 0.0, 0.0, 0.5, 0.0],  # service discovery
        [0.0, 0.2, 0.0, 0.2, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0],  # forgotten password
        [0.0, 0.1, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 1.1],  # symptom of the patient
        [0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0],  # weak radio link
    ]
)
EVENT_SHARES = (0.04, 0.03, 0.03, 0.03, 0.05, 0.08)  # of benign flows, for the last six rows above
DEVICE_SPREAD = np.array([0.4, 0.4, 0.3, 0.3, 0.3, 0.0, 0.0, 0.08, 0.6, 0.15])  # between devices of a class
FLOW_SPREAD = np.array([0.7, 0.5, 0.3, 0.4, 0.4, 0.0, 0.0, 0.15, 0.0, 0.5])  # between flows of a device
# Log weights of the protocols, by device class and by attack.
SPOKEN = np.array([[2, 1, 1, -1, 0], [1, 0, 1, 1, -1], [1, -1, 1, 1, 1], [0, 2, -1, -1, 0.5], [1, 1, 1.5, 1, 0.5]])
ABUSED = np.array(
    [
        [0, 0, 0, 0, 0],
        [0, 0.3, 0, 0.5, 1.2],
        [-1, 0, 0, 1.2, 0.5],
        [0.4, 0.4, 0, 0, 0.4],
        [0.4, 0.2, 0, 0, 0],
        [-0.5, -1, 1, 1.2, -1],
        [0.3, 0.3, 0, 0, 0.2],
    ]
)
# How often an attacker picks each of the six attacks, by device class.
TARGETED = np.array(
    [[1, 1, 2, 2, 1, 2], [1, 1, 1, 3, 2, 2], [2, 2, 1, 2, 2, 1], [1, 0.5, 2, 3, 0.5, 3], [3, 3, 1, 1, 3, 1]]
)
CLASS_SHARES = (0.35, 0.15, 0.2, 0.2, 0.1)
ATTACKED_SHARES = (0.45, 0.35, 0.20)  # of devices that suffer no, one, two campaigns


def _pick(weights: Array, uniform: Array) -> Array:
    """Inverse-CDF draw along the last axis: f32[..., n], f32[...] -> i32[...]."""
    cdf = jnp.cumsum(weights, axis=-1)
    return jnp.sum(uniform[..., None] * cdf[..., -1:] > cdf[..., :-1], axis=-1).astype(jnp.int32)


def _constant(table: object) -> Array:
    return jnp.asarray(np.asarray(table), jnp.float32)


def _attacks(kind: Array, uniforms: Array, chance: Array) -> Array:
    """Labels of a device's flows: up to two campaigns, each one attack type over a run of consecutive flows.

    Args:
      kind: i32[], device class.
      uniforms: f32[7], for the number of campaigns, and two times type, start, length.
      chance: f32[40], for a flow of a campaign's time being benign all the same.

    Returns:
      i32[40], class index.
    """
    campaigns = _pick(_constant(ATTACKED_SHARES), uniforms[0])
    types = 1 + _pick(jnp.broadcast_to(_constant(TARGETED)[kind][None, :], (2, len(ATTACKS) - 1)), uniforms[1:3])
    length = 6.0 + 14.0 * uniforms[5:7]
    start = uniforms[3:5] * 36.0 - 4.0
    at = jnp.arange(FLOWS, dtype=jnp.float32)[:, None]
    live = (at >= start[None, :]) & (at < (start + length)[None, :]) & (jnp.arange(2)[None, :] < campaigns)
    hit = jnp.where(live[:, 1], types[1], jnp.where(live[:, 0], types[0], 0))
    return jnp.where(chance < 0.8, hit, 0)


def _flows(traits: Traits, uniforms: Array) -> Array:
    """Turns traits into consistent counters: bytes >= 40 packets, mean size and interarrival derived: f32[40, 12]."""
    packets = jnp.exp(traits.duration + traits.rate)
    share_in = jax.nn.sigmoid(traits.reply)
    packets_out = jnp.clip(jnp.round(packets * (1.0 - share_in)), 1.0, 1e6)
    packets_in = jnp.clip(jnp.round(packets * share_in), 1.0, 1e6)
    payload = jnp.exp(traits.size)
    bytes_out = jnp.round(packets_out * jnp.clip(40.0 + payload, 40.0, 1500.0))
    bytes_in = jnp.round(packets_in * jnp.clip(40.0 + 0.6 * payload, 40.0, 1500.0))
    # Counters and time are rounded first, so that what is derived from them agrees with what is published.
    total = packets_out + packets_in
    duration = jnp.round(jnp.minimum(jnp.exp(traits.duration), 36_000.0) * 100.0) / 100.0
    interarrival = 1000.0 * duration / total
    further = jnp.floor(traits.ports * (0.35 - 0.65 * jnp.log1p(-uniforms[:, 0])) + 0.05)
    failed = jnp.floor(traits.logins * (0.35 - 0.65 * jnp.log1p(-uniforms[:, 1])) + 0.05)
    columns = [duration, bytes_out, bytes_in, packets_out, packets_in, (bytes_out + bytes_in) / total, interarrival]
    columns += [interarrival * jnp.exp(traits.jitter), 1.0 + further, failed]
    columns += [8.0 - jnp.exp(traits.disorder), jnp.exp(traits.deviation)]
    inputs = THREATS.inputs[:NUM_NUMERIC]
    low, high = _constant([c.low for c in inputs]), _constant([c.high for c in inputs])
    steps = _constant([10.0 ** (c.decimals or 0) for c in inputs])
    values = jnp.clip(jnp.stack(columns, axis=1), low[None, :], high[None, :])
    return jnp.round(values * steps[None, :]) / steps[None, :]


def _simulate(key: Array) -> tuple[Array, Array, Array]:
    """One device: key -> (f32[40, 15], i32[40], i32[]), as in `Simulator.simulate`."""
    normal_key, uniform_key = jax.random.split(key)
    width = len(Traits._fields)
    normals = jax.random.normal(normal_key, (FLOWS + 1, width), jnp.float32)
    # One call per distribution: every further call costs compile time, and cutting one draw costs none.
    uniforms = jax.random.uniform(uniform_key, (9 + FLOWS * 7,), jnp.float32)
    own, each = uniforms[:9], uniforms[9:].reshape(FLOWS, 7)

    kind = _pick(_constant(CLASS_SHARES), own[0])
    count = 10 + jnp.floor((FLOWS - 9) * own[1]).astype(jnp.int32)
    label = _attacks(kind, own[2:9], each[:, 2])
    none = 1.0 - sum(EVENT_SHARES)
    event = _pick(jnp.broadcast_to(_constant((none, *EVENT_SHARES))[None, :], (FLOWS, 7)), each[:, 3])
    row = jnp.where(label > 0, label, jnp.where(event > 0, len(ATTACKS) - 1 + event, 0))
    strength = 0.6 + 1.0 * each[:, 4]  # an attacker may hide

    usual = _constant(USUAL)[kind] + _constant(DEVICE_SPREAD) * normals[0]
    flow = (
        usual[None, :] + _constant(FLOW_SPREAD)[None, :] * normals[1:] + _constant(SIGNATURE)[row] * strength[:, None]
    )
    traits = Traits(*flow.T)
    weights = jnp.exp(_constant(SPOKEN)[kind][None, :] + _constant(ABUSED)[label])
    protocol = _pick(weights, each[:, 5])
    encrypted = each[:, 6] > jax.nn.sigmoid(traits.plain)
    # Ciphertext is nearly random: little entropy is missing.
    traits = traits._replace(disorder=traits.disorder - jnp.where(encrypted, 2.0, 0.0))
    codes = [protocol.astype(jnp.float32), encrypted.astype(jnp.float32)]
    codes += [jnp.broadcast_to(kind.astype(jnp.float32), (FLOWS,))]
    return jnp.concatenate([_flows(traits, each), jnp.stack(codes, axis=1)], axis=1), label, count


def make_threats() -> Simulator:
    """Simulator of the devices' network flows; task "detection", H = 40 rows, 10 … 40 of them real.

    Each device has its own class and its own habits, and is spared or attacked by one or two campaigns of one type
    each. Attacks vary in strength and harmless events (bursts, updates, discovery, forgotten passwords, symptoms, weak
    links) resemble them, so that no feature alone separates them.

    The signatures follow what public intrusion sets record, stylised (flow counters: Sharafaldin et al., 2018,
    CIC-IDS2017; vitals beside flows: Hady et al., 2020, WUSTL-EHMS); the shares and sizes are ours.

    Returns:
      Simulator; no missing cells. Label 0 is benign.
    """
    return Simulator(THREATS, "detection", FLOWS, _simulate)
