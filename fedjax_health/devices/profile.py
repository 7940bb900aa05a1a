"""What a device class can do, and what a round costs it: time and energy from the round's own FLOPs and bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class DeviceProfile(NamedTuple):
    """One class of device.

    Attributes:
      name: for tables.
      share: share of the fleet, in [0, 1].
      flops_per_second: sustained f32 speed of the training loop.
      up_bits_per_second, down_bits_per_second: application throughput.
      latency_seconds: round trip before the first byte.
      joules_per_flop: energy of computing.
      joules_per_byte: energy of the radio.
      spread: standard deviation of the log of speed and throughput between devices of the class.
    """

    name: str
    share: float
    flops_per_second: float
    up_bits_per_second: float
    down_bits_per_second: float
    latency_seconds: float
    joules_per_flop: float
    joules_per_byte: float
    spread: float


# Orders of magnitude from public data: Cortex-M4F at 64 MHz with ~0.5 flop a cycle and 3 mA at 3 V (nRF52840 product
# specification); BLE 1M PHY gives about 700 kbit/s to an application and ~0.15 uJ a bit (Siekkinen et al. 2012, "How low
# energy is Bluetooth Low Energy?"); LTE median 30 / 10 Mbit/s and ~0.4 to 1 uJ a bit (Huang et al. 2012, MobiSys); a
# phone core sustains about 5 GFLOP/s at 2 W; a hospital gateway is a small x86 box on 100 Mbit/s Ethernet.
WEARABLE_BLE = DeviceProfile("wearable on BLE", 0.6, 32e6, 0.7e6, 0.7e6, 0.1, 3e-10, 1.2e-6, 0.5)
PHONE_LTE = DeviceProfile("phone on LTE", 0.3, 5e9, 10e6, 30e6, 0.05, 4e-10, 6e-6, 0.7)
GATEWAY = DeviceProfile("hospital gateway", 0.1, 2e10, 100e6, 100e6, 0.005, 1e-9, 1e-7, 0.2)
FLEET = (WEARABLE_BLE, PHONE_LTE, GATEWAY)


class RoundCost(NamedTuple):
    """Simulated cost of rounds.

    Attributes:
      latency_seconds: f64[T], a round ends with its slowest client.
      energy_joules: f64[T], all clients of the round together.
    """

    latency_seconds: np.ndarray
    energy_joules: np.ndarray


def simulate_rounds(
    cohort: np.ndarray,
    flops: float,
    bytes_up: float,
    bytes_down: float,
    generator: np.random.Generator,
    fleet: tuple[DeviceProfile, ...] = FLEET,
) -> RoundCost:
    """Time and energy of rounds: t_k = latency + down / d_k + flops / s_k + up / u_k; a round takes max_k t_k.

    Args:
      cohort: i64[T], clients that took part in each round.
      flops: floating-point operations of one client's local training.
      bytes_up, bytes_down: bytes of one client's update and of the model it receives.
      generator: draws each client's device.
      fleet: classes; shares sum to one.

    Returns:
      RoundCost; a round without clients costs nothing.
    """
    shares = np.array([d.share for d in fleet])
    latency, energy = np.zeros(len(cohort)), np.zeros(len(cohort))
    for r, size in enumerate(cohort):
        if size == 0:
            continue
        kind = generator.choice(len(fleet), size=int(size), p=shares / shares.sum())

        def of(field: str, kind: np.ndarray = kind) -> np.ndarray:
            return np.array([getattr(d, field) for d in fleet])[kind]

        luck = np.exp(of("spread") * generator.standard_normal((2, int(size))))
        network = 8 * bytes_up / of("up_bits_per_second") + 8 * bytes_down / of("down_bits_per_second")
        seconds = of("latency_seconds") + network * luck[0] + flops / of("flops_per_second") * luck[1]
        latency[r] = seconds.max()
        energy[r] = np.sum(flops * of("joules_per_flop") + (bytes_up + bytes_down) * of("joules_per_byte"))
    return RoundCost(latency, energy)
