"""What an evasive flow may change: its free quantities but those that its attack needs; all else in its record follows.

A flow is described by quantities that can be chosen apart from one another; everything else in its record is computed from
them again, so that what an attacker makes is a flow that could exist. What makes an attack the attack stays as it is (the
functional features of Lin et al. 2022, IDSGAN, arXiv 1809.02077).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_health.data.encode import public_scaling
from fedjax_health.data.equations import make_complete
from fedjax_health.data.schema import Column, Schema
from fedjax_health.data.threats import THREATS
from fedjax_health.types import Array, UserError

# What each simulated attack needs. Nobody can change what device a flow comes from, its protocol or whether it is encrypted:
# codes are never changed.
FUNCTIONAL = {
    "flooding": ("duration", "packets_out"),  # packets sent a second
    "scanning": ("distinct_ports", "packets_out"),  # ports asked, by a packet each at least
    "spoofing": ("payload_deviation", "packets_out"),  # the forged readings, and that they are sent
    "data_alteration": ("payload_deviation",),  # the altered readings
    "brute_force": ("failed_logins", "duration"),  # attempts a second
    "replay": ("payload_deviation", "payload_entropy", "size_out"),  # the payload that is sent again
}
# NSL-KDD's groups of features, and those that each family of attacks needs (Lin et al. 2022, section 3.2).
INTRINSIC = (
    "duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land", "wrong_fragment", "urgent",
)  # fmt: skip
CONTENT = (
    "hot", "num_failed_logins", "logged_in", "num_compromised", "root_shell", "su_attempted", "num_root",
    "num_file_creations", "num_shells", "num_access_files", "num_outbound_cmds", "is_host_login", "is_guest_login",
)  # fmt: skip
TIMED = (
    "count", "srv_count", "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate", "same_srv_rate",
    "diff_srv_rate", "srv_diff_host_rate",
)  # fmt: skip
HOST = (
    "dst_host_count", "dst_host_srv_count", "dst_host_same_srv_rate", "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate", "dst_host_srv_diff_host_rate", "dst_host_serror_rate", "dst_host_srv_serror_rate",
    "dst_host_rerror_rate", "dst_host_srv_rerror_rate",
)  # fmt: skip
NSL_KDD_FUNCTIONAL = {
    "dos": (*INTRINSIC, *TIMED),
    "probe": (*INTRINSIC, *TIMED, *HOST),
    "r2l": (*INTRINSIC, *CONTENT),
    "u2r": (*INTRINSIC, *CONTENT),
}


class FlowSpace(NamedTuple):
    """Free quantities of a flow, each in units of its public scale, and the way back to a whole record.

    Attributes:
      names: of the J free quantities.
      functional: bool[L, J], what an attack of each class may not change; all of it for class 0.
      apart: f32[F] in units -> f32[J].
      join: (f32[J], change f32[J], original f32[F]) -> f32[F] in units: the flow with its quantities changed, inside range and
        resolution, relations computed anew; what nothing changed is as it was. Its gradient is that before rounding.
      rounding: f32[F] in units -> f32[J], the most by which rounding a flow to these published values moved each free quantity.
    """

    names: tuple[str, ...]
    functional: np.ndarray
    apart: Callable[[Array], Array]
    join: Callable[[Array, Array, Array], Array]
    rounding: Callable[[Array], Array]


def functional_mask(schema: Schema, names: Sequence[str], needs: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Which free quantities an attack of each class may not change: bool[L, J].

    Args:
      schema: its label categories name the attacks.
      names: of the J free quantities.
      needs: attack, in lower case -> what it needs; names that are no free quantity (codes) are never changed anyway.

    Raises:
      UserError: an attack of the schema is not in `needs`.
    """
    mask = np.ones((schema.num_classes, len(names)), bool)
    for c, attack in enumerate(schema.label.categories[1:], start=1):
        if attack.lower() not in needs:
            raise UserError(
                f"schema {schema.name!r}: what attack {attack!r} needs is not known (known: {', '.join(needs)}); name its "
                "functional features"
            )
        mask[c] = [name in needs[attack.lower()] for name in names]
    return mask


def _rounded(x: Array, column: Column) -> Array:
    """Inside the column's range and at its resolution, with the gradient of what is inside."""
    inside = jnp.clip(x, column.low, column.high)
    if column.decimals is None:
        return inside
    step = 10.0**column.decimals
    # exact all the same: the difference of two numbers this close is, and so is the sum
    return inside + jax.lax.stop_gradient(jnp.clip(jnp.round(inside * step) / step, column.low, column.high) - inside)


def _unless(kept: Array, original: Array, made: Array) -> Array:
    """The original where it is kept, bit for bit, with the gradient of what was made."""
    return jnp.where(kept, original + (made - jax.lax.stop_gradient(made)), made)


def _scaled(x: Array, column: Column) -> Array:
    center, scale = public_scaling(column)
    return ((jnp.log1p(x) if column.transform == "log1p" else x) - center) / scale


def _unscaled(z: Array, column: Column) -> Array:
    center, scale = public_scaling(column)
    x = z * scale + center
    return jnp.expm1(jnp.minimum(x, 80.0)) if column.transform == "log1p" else x


def _half_step(x: Array, column: Column) -> Array:
    """How far half a step of the resolution reaches, in public scales; 0 as generated."""
    half = 0.0 if column.decimals is None else 0.5 * 10.0**-column.decimals
    return jnp.maximum(_scaled(x + half, column) - _scaled(x, column), _scaled(x, column) - _scaled(x - half, column))


def column_space(schema: Schema, needs: Mapping[str, Sequence[str]]) -> FlowSpace:
    """A space whose free quantities are the numeric columns that the schema does not derive, such as NSL-KDD's.

    Missing cells stay missing; equations of the schema and `at_most` (the smaller one is cut) hold in every flow that changes.

    Args:
      schema: of the logs.
      needs: as in `functional_mask`.

    Raises:
      UserError: an attack of the schema is not in `needs`.
    """
    columns = {c.name: c for c in schema.inputs if c.kind == "numeric" and not c.derived}
    names, complete = tuple(columns), make_complete(schema)
    where = np.array([schema.index(n) for n in names])

    def apart(values: Array) -> Array:
        return jnp.stack([_scaled(jnp.nan_to_num(values[i]), columns[n]) for n, i in zip(names, where, strict=True)])

    def join(free: Array, change: Array, values: Array) -> Array:
        out = values
        for j, (name, i) in enumerate(zip(names, where, strict=True)):
            made = _rounded(_unscaled(free[j] + change[j], columns[name]), columns[name])
            made = _unless(jax.lax.stop_gradient(change[j]) == 0.0, values[i], made)
            out = out.at[i].set(jnp.where(jnp.isnan(values[i]), values[i], made))
        for name, column in columns.items():
            if column.at_most:
                out = out.at[schema.index(name)].min(out[schema.index(column.at_most)])
        whole = complete(out) + (out - jax.lax.stop_gradient(out))
        return jnp.where(jnp.any(jax.lax.stop_gradient(change) != 0.0), whole, out)

    def rounding(values: Array) -> Array:
        return jnp.stack([_half_step(jnp.nan_to_num(values[i]), columns[n]) for n, i in zip(names, where, strict=True)])

    return FlowSpace(names, functional_mask(schema, names, needs), apart, join, rounding)


def threat_space(schema: Schema = THREATS) -> FlowSpace:
    """The free quantities of a simulated flow: ten, from which its twelve numbers follow.

    bytes_out = round(packets_out size_out), bytes_in likewise; mean_packet_size = (bytes_out + bytes_in) / packets;
    mean_interarrival = 1000 duration / packets, all from published (rounded) counters. size_out and size_in are bytes a packet,
    40 to 1500, in units of the scale of mean_packet_size.

    Args:
      schema: of simulated logs.
    """
    size = schema.inputs[schema.index("mean_packet_size")]
    direct = (
        "duration", "packets_out", "packets_in", "jitter", "distinct_ports", "failed_logins", "payload_entropy",
        "payload_deviation",
    )  # fmt: skip
    names: tuple[str, ...] = (*direct, "size_out", "size_in")
    at = {c.name: i for i, c in enumerate(schema.inputs)}
    column = {n: schema.inputs[at[n]] for n in at}

    def apart(values: Array) -> Array:
        own = [_scaled(values[at[n]], column[n]) for n in direct]
        sizes = [values[at[f"bytes_{way}"]] / values[at[f"packets_{way}"]] for way in ("out", "in")]
        return jnp.stack([*own, *(_scaled(s, size) for s in sizes)])

    def join(free: Array, change: Array, values: Array) -> Array:
        moved: dict[str, Array] = dict(zip(names, free + change, strict=True))
        still: dict[str, Array] = dict(zip(names, jax.lax.stop_gradient(change) == 0.0, strict=True))
        new = {n: values[at[n]] for n in at}
        for n in direct:
            new[n] = _unless(still[n], new[n], _rounded(_unscaled(moved[n], column[n]), column[n]))
        for way in ("out", "in"):
            each = jnp.clip(_unscaled(moved[f"size_{way}"], size), size.low, size.high)
            counted = _rounded(new[f"packets_{way}"] * each, column[f"bytes_{way}"])
            kept = still[f"size_{way}"] & still[f"packets_{way}"]
            new[f"bytes_{way}"] = _unless(kept, new[f"bytes_{way}"], counted)
        total = new["packets_out"] + new["packets_in"]
        counted = still["packets_out"] & still["packets_in"]
        derived = (
            ("mean_packet_size", (new["bytes_out"] + new["bytes_in"]) / total, still["size_out"] & still["size_in"]),
            ("mean_interarrival", 1000.0 * new["duration"] / total, still["duration"]),
        )
        for n, x, kept in derived:
            new[n] = _unless(counted & kept, new[n], _rounded(x, column[n]))
        return jnp.stack([new[c.name] for c in schema.inputs])

    def rounding(values: Array) -> Array:
        own = [_half_step(values[at[n]], column[n]) for n in direct]
        return jnp.stack(
            [*own, *(0.5 / values[at[f"packets_{way}"]] / public_scaling(size)[1] for way in ("out", "in"))]
        )

    return FlowSpace(names, functional_mask(schema, names, FUNCTIONAL), apart, join, rounding)
