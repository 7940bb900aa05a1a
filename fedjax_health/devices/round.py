"""One round on the devices: who answers, how long it takes, and what it costs; part of the compiled program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_health.devices.availability import Available, make_always, make_diurnal, make_markov
from fedjax_health.devices.clock import Clock
from fedjax_health.devices.profile import CLASSES, Device, DeviceClass, describe, draw
from fedjax_health.federation_config import DevicesConfig
from fedjax_health.registry import lookup
from fedjax_health.types import Array, Metrics, UserError

HARDWARE, AVAILABILITY = 0, 1  # streams of a world
RETRY_SECONDS = 60.0  # until the server asks again when nobody is at work

COUNTS = ("sim/offline", "sim/out_of_memory", "sim/failed", "sim/late")
TOTALS = ("sim/round_seconds", "sim/energy_joules", "sim/bytes_up", "sim/bytes_down", "sim/flops")
METRICS = (*TOTALS, *COUNTS, *(f"sim/alive_{c.slug}" for c in CLASSES))  # of every round


class Work(NamedTuple):
    """What a round asks of a client.

    Attributes:
      flops: f32[C], floating-point operations of each client's training, and what else it computes in as many.
      bytes_up, bytes_down: f32[], of one update and of the model, as sent.
      memory_bytes: f32[], RAM that training needs.
      calls: f32[], exchanges with the server, each of which waits for the latency.
    """

    flops: Array
    bytes_up: Array
    bytes_down: Array
    memory_bytes: Array
    calls: Array


class Outcome(NamedTuple):
    """What became of a round.

    Attributes:
      alive: bool[C], the clients whose updates count.
      seconds: f32[], simulated time until the next round starts.
      metrics: METRICS, f32[] each; counts are clients, everything else is summed over clients.
      joined: bool[C], the clients that began to work: they were on, and have the memory.
    """

    alive: Array
    seconds: Array
    metrics: Metrics
    joined: Array


class DeviceLayer(NamedTuple):
    """The devices of a federation. All functions see the whole cohort, not one shard of it.

    Attributes:
      available: (world key, client i32[C], clock) -> bool[C], who is on.
      seconds: (world key, client i32[C], Work, key of the round) -> f32[C], time that each needs for the work.
      play: (world key, client i32[C], mask bool[C], Work, clock, key of the round) -> Outcome.
      data_independent: whether no client's presence or data changes who else takes part, now or in later rounds; what an
        accountant takes for granted.
      loses_nobody: whether every client that begins to work also answers.
    """

    available: Available
    seconds: Callable[[Array, Array, Work, Array], Array]
    play: Callable[[Array, Array, Array, Work, Clock, Array], Outcome]
    data_independent: bool
    loses_nobody: bool


class _Times(NamedTuple):
    """f32[C] each: when a client has the model, has trained, and has sent its update; s from the start of the round."""

    received: Array
    trained: Array
    finished: Array


def _luck(key: Array, client: Array) -> Array:
    """f32[C, 3] in (0, 1): a round's chance of each client, for its speed, its link, and breaking off."""
    return draw(key, client, 3)


def _times(device: Device, work: Work, luck: Array) -> _Times:
    factor = jnp.exp(device.luck[:, None] * jax.scipy.special.ndtri(luck[:, :2]))
    speed, link = factor[:, 0], factor[:, 1]
    received = work.calls * device.latency_seconds + 8.0 * work.bytes_down / (device.down_bits_per_second * link)
    trained = received + work.flops / (device.flops_per_second * speed)
    return _Times(received, trained, trained + 8.0 * work.bytes_up / (device.up_bits_per_second * link))


def _part(stop: Array, begin: Array, end: Array) -> Array:
    """Share of the phase [begin, end] that was over at `stop`; exactly 1 for a finished one. All f32[C]."""
    span = jnp.maximum(end - begin, jnp.finfo(jnp.float32).tiny)
    return jnp.where(stop >= end, 1.0, jnp.clip((stop - begin) / span, 0.0, 1.0))


def _total(who: Array, values: Array) -> Array:
    return jnp.sum(jnp.where(who, values, 0.0))


def make_ideal() -> DeviceLayer:
    """Devices that are always on, cost nothing and take no time: nothing of them is in the compiled program."""

    def seconds(world_key: Array, client: Array, work: Work, key: Array) -> Array:
        del world_key, work, key
        return jnp.zeros(client.shape, jnp.float32)

    def play(world_key: Array, client: Array, mask: Array, work: Work, clock: Clock, key: Array) -> Outcome:
        del world_key, client, work, clock, key
        return Outcome(mask, jnp.float32(0.0), {}, mask)

    return DeviceLayer(make_always(), seconds, play, True, True)


def make_devices(
    config: DevicesConfig, cohort: int, timetable: bool = False, classes: tuple[DeviceClass, ...] = CLASSES
) -> DeviceLayer:
    """Devices as configured.

    A client asked in a round that is off does not answer; one whose memory is too small refuses; the others work for
    t_k = calls latency + 8 down / d_k + flops / s_k + 8 up / u_k, unless they break off at an exponential time. The round ends

    * when each at work has answered or broken off; with a deadline the server cannot tell a broken device from a slow one,
      so it waits until the deadline for either, and leaves later answers out;
    * with over_commitment > 1, as soon as `cohort` have answered (ties count), and leaves later answers out;
    * after RETRY_SECONDS (or the deadline, if shorter) where nobody is at work.

    Whoever is left out works, sends and pays until the round ends. Energy is that of computing, of the bytes, of the link
    while it works, and of the radio's tail after the download (as far as computing does not cut it short) and at the end.

    Args:
      config: devices.
      cohort: answers that end a round, > 0; used by over_commitment > 1.
      timetable: the next round starts at the deadline whenever this one ended. A private run with availability needs it:
        otherwise the slowest client moves the hour of all later rounds, and with it who else takes part in them.
      classes: of the fleet, as many as config.shares.

    Returns:
      DeviceLayer. Time and memory O(C log C) however many clients there are.

    Raises:
      UserError: unknown availability, or a timetable without a deadline.
    """
    if timetable and config.deadline_seconds <= 0.0:
        raise UserError("devices.deadline_seconds=0 leaves a timetable of rounds without a period; set it above 0")
    make_available = {
        "always": make_always,
        "markov": lambda: make_markov(config.on_fraction, config.mean_on_seconds),
        "diurnal": lambda: make_diurnal(config.on_fraction),
    }
    on = lookup("availability", config.availability, make_available)()
    mean_seconds = 3600.0 / config.failures_per_hour if config.failures_per_hour > 0.0 else math.inf
    deadline, races = config.deadline_seconds, config.over_commitment > 1.0

    def available(world_key: Array, client: Array, clock: Clock) -> Array:
        return on(jax.random.fold_in(world_key, AVAILABILITY), client, clock)

    def hardware(world_key: Array, client: Array) -> Device:
        return describe(jax.random.fold_in(world_key, HARDWARE), client, config.shares, classes)

    def seconds(world_key: Array, client: Array, work: Work, key: Array) -> Array:
        return _times(hardware(world_key, client), work, _luck(key, client)).finished

    def play(world_key: Array, client: Array, mask: Array, work: Work, clock: Clock, key: Array) -> Outcome:
        device = hardware(world_key, client)
        luck = _luck(key, client)
        times = _times(device, work, luck)
        broken = -jnp.log(luck[:, 2]) * mean_seconds
        online = mask & available(world_key, client, clock)
        working = online & (work.memory_bytes <= device.memory_bytes)
        answers = working & (times.finished <= broken)
        answered = jnp.where(answers, times.finished, jnp.inf)
        end = jnp.max(jnp.where(working, jnp.minimum(times.finished, broken), 0.0))
        if deadline > 0.0:
            waits = jnp.any(working & ~(answered <= deadline))
            end = jnp.where(waits, deadline, end)
        if races and cohort <= client.shape[0]:
            end = jnp.minimum(end, jnp.sort(answered)[cohort - 1])
        alive = answers & (times.finished <= end)
        failed = working & ~answers & (broken <= end)

        stop = jnp.minimum(jnp.minimum(times.finished, broken), end)
        waited = work.calls * device.latency_seconds
        got = _part(stop, waited, times.received)
        trained = _part(stop, times.received, times.trained)
        sent = _part(stop, times.trained, times.finished)
        link = got * (times.received - waited) + sent * (times.finished - times.trained)
        computing = trained * (times.trained - times.received)
        energy = (
            trained * work.flops * device.joules_per_flop
            + got * (work.bytes_down * device.joules_per_byte_down)
            + sent * (work.bytes_up * device.joules_per_byte_up)
            + link * device.radio_watts
            + (jnp.minimum(computing, device.tail_seconds) + device.tail_seconds) * device.tail_watts
        )
        nobody = min(RETRY_SECONDS, deadline) if deadline > 0.0 else RETRY_SECONDS
        length = jnp.where(jnp.any(working), end, jnp.float32(nobody))

        def count(who: Array) -> Array:
            return jnp.sum(who.astype(jnp.float32))

        metrics = {
            "sim/round_seconds": length,
            "sim/energy_joules": _total(working, energy),
            # the sum of parts first: whole clients add up exactly, and one product rounds once
            "sim/bytes_up": _total(working, sent) * work.bytes_up,
            "sim/bytes_down": _total(working, got) * work.bytes_down,
            "sim/flops": _total(working, trained * work.flops),
            "sim/offline": count(mask & ~online),
            "sim/out_of_memory": count(online & ~working),
            "sim/failed": count(failed),
            "sim/late": count(working & ~alive & ~failed),
        }
        metrics |= {f"sim/alive_{c.slug}": count(alive & (device.kind == i)) for i, c in enumerate(classes)}
        return Outcome(alive, jnp.float32(deadline) if timetable else length, metrics, working)

    exact_hours = config.availability == "always" or timetable
    loses_nobody = not races and deadline == 0.0 and config.failures_per_hour == 0.0
    return DeviceLayer(available, seconds, play, not races and exact_hours, loses_nobody)
