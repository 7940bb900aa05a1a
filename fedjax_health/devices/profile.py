"""Which hardware a client has: classes of devices with their sources, and the device of a client id."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health import rng
from fedjax_health.types import Array


class DeviceClass(NamedTuple):
    """A class of devices; the device of a client is drawn around it.

    Attributes:
      name: for tables.
      slug: for metrics, sim/alive_<slug>.
      flops_per_second: sustained float32 speed of a training loop.
      memory_bytes: RAM that training may use.
      up_bits_per_second, down_bits_per_second: throughput that an application sees.
      latency_seconds: from the server's call to the first byte.
      joules_per_flop: energy of computing.
      joules_per_byte_up, joules_per_byte_down: energy of the link that grows with the bytes.
      radio_watts: power of the link while bytes flow, beside the energy per byte.
      tail_watts, tail_seconds: power of the radio after the last byte, and how long until it sleeps.
      spread: standard deviation between devices of the class of ln(speed) and of ln(throughput); medians are as above.
      luck: standard deviation between rounds of one device of the same two.
    """

    name: str
    slug: str
    flops_per_second: float
    memory_bytes: float
    up_bits_per_second: float
    down_bits_per_second: float
    latency_seconds: float
    joules_per_flop: float
    joules_per_byte_up: float
    joules_per_byte_down: float
    radio_watts: float
    tail_watts: float
    tail_seconds: float
    spread: float
    luck: float


# nRF52840 (Nordic product specification, 3 V, DC/DC): Cortex-M4F at 64 MHz drawing 3.3 mA; a multiply-add with its two
# loads takes about four cycles, so 32 MFLOP/s and 9.9 mW / 32e6 = 3e-10 J. 256 KiB RAM, a quarter of it for the BLE
# stack and the sensing application. About 0.7 Mbit/s for an application on the 1M PHY that every phone has (S140
# SoftDevice specification; the 2M PHY gives 1.3). The radio sleeps between packets, so its energy is one of bytes:
# 4.8 mA sending at 0 dBm and 4.6 mA receiving over 87.5 kB/s. Siekkinen et al. 2012 measured seven times that on the
# older CC2540. The phone that relays is not counted.
WEARABLE_BLE = DeviceClass(
    "wearable on BLE",
    "wearable_ble",
    32e6,
    192 * 2**10,
    0.7e6,
    0.7e6,
    0.1,
    3e-10,
    1.65e-7,
    1.6e-7,
    0.0,
    0.0,
    0.0,
    0.5,
    0.3,
)
# Phones: one big core sustains about 5 GFLOP/s (an eighth of its peak) at 2 W; an app may hold about 512 MiB.
# LTE (Huang et al. 2012, MobiSys): medians of 6 Mbit/s up and 13 down, round trip 70 ms after a promotion of 260 ms;
# power 1288 mW + 438 mW per Mbit/s up or 52 mW per Mbit/s down; after the last byte 1060 mW for 11.6 s.
PHONE_LTE = DeviceClass(
    "phone on LTE", "phone_lte", 5e9, 512 * 2**20, 6e6, 13e6, 0.33, 4e-10, 3.5e-6, 4.2e-7, 1.29, 1.06, 11.6, 0.7, 0.5
)
# Wi-Fi: a home line of 20 Mbit/s up and 50 down sets the pace. An 802.11n phone draws about 1 W while bytes flow, most of
# it whatever the rate (order of magnitude; the per-Mbit/s slopes that Huang et al. fitted to 802.11g do not carry over);
# tail of 0.12 W for 0.24 s (Huang et al. 2012).
PHONE_WIFI = DeviceClass(
    "phone on Wi-Fi", "phone_wifi", 5e9, 512 * 2**20, 20e6, 50e6, 0.05, 4e-10, 0.0, 0.0, 1.0, 0.12, 0.24, 0.7, 0.3
)
# A small x86 box without a fan: four cores with a peak near 200 GFLOP/s, a tenth of it sustained, 20 W at the wall under
# load; 100 Mbit/s Ethernet, about 1 W more for the port while it works at 12.5 MB/s.
GATEWAY = DeviceClass(
    "hospital gateway", "hospital_gateway", 2e10, 4 * 2**30, 1e8, 1e8, 0.01, 1e-9, 8e-8, 8e-8, 0.0, 0.0, 0.0, 0.2, 0.1
)
CLASSES = (WEARABLE_BLE, PHONE_LTE, PHONE_WIFI, GATEWAY)  # in the order of DevicesConfig.shares


class Device(NamedTuple):
    """The devices of C clients; units as in `DeviceClass`.

    Attributes:
      kind: i32[C], index into the classes.
      flops_per_second, up_bits_per_second, down_bits_per_second: f32[C], with the device's place in the spread.
      memory_bytes, latency_seconds, joules_per_flop, joules_per_byte_up, joules_per_byte_down, radio_watts, tail_watts,
        tail_seconds, luck: f32[C], of its class.
    """

    kind: Array
    flops_per_second: Array
    memory_bytes: Array
    up_bits_per_second: Array
    down_bits_per_second: Array
    latency_seconds: Array
    joules_per_flop: Array
    joules_per_byte_up: Array
    joules_per_byte_down: Array
    radio_watts: Array
    tail_watts: Array
    tail_seconds: Array
    luck: Array


def draw(key: Array, client: Array, words: int) -> Array:
    """Independent uniforms of each client: the same whatever slot it stands in, and whoever else is there.

    Args:
      key: typed key.
      client: i32[C], ids.
      words: numbers a client.

    Returns:
      f32[C, words] in (0, 1).
    """
    # off zero, where a normal or exponential quantile would be infinite
    return jax.vmap(lambda c: jax.random.uniform(rng.client_key(key, c), (words,), jnp.float32, 2.0**-25))(client)


def describe(
    world_key: Array, client: Array, shares: tuple[float, ...], classes: tuple[DeviceClass, ...] = CLASSES
) -> Device:
    """The hardware of clients: a function of (world, client id), never stored.

    Args:
      world_key: typed key of the world.
      client: i32[C], ids.
      shares: share of each class in the fleet, >= 0, sum 1.
      classes: as many.

    Returns:
      Device. A client's up and down throughput deviate together (one place, one subscription).
    """
    u = draw(world_key, client, 3)
    edges = jnp.cumsum(jnp.asarray(shares[:-1], jnp.float32))
    kind = jnp.sum((u[:, :1] >= edges[None, :]).astype(jnp.int32), axis=1)

    def of(field: str) -> Array:
        return jnp.asarray([getattr(c, field) for c in classes], jnp.float32)[kind]

    factor = jnp.exp(of("spread")[:, None] * jax.scipy.special.ndtri(u[:, 1:]))
    fields = {name: of(name) for name in Device._fields[1:]}
    fields["flops_per_second"] *= factor[:, 0]
    fields["up_bits_per_second"] *= factor[:, 1]
    fields["down_bits_per_second"] *= factor[:, 1]
    return Device(kind, **fields)
