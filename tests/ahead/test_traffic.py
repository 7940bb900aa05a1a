"""Bytes and kernels of a compiled program against counts by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from fedjax_health.ahead.traffic import count_traffic, parse, size_of
from fedjax_health.ahead.trips import Trips

TRIPS = Trips(3.0, 5.0, 0.0)
PROGRAM = """HloModule m

%inner (a: f32[10]) -> f32[10] {
  %a = f32[10]{0} parameter(0)
  ROOT %t = f32[10]{0} tanh(%a)
}

%sliced (b: f32[100,10], i: s32[]) -> f32[1,10] {
  %b = f32[100,10]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  ROOT %s = f32[1,10]{1,0} dynamic-slice(%b, %i, %z), dynamic_slice_sizes={1,10}
}

%body (c: (s32[], f32[10])) -> (s32[], f32[10]) {
  %c = (s32[], f32[10]{0}) parameter(0)
  %n = s32[] get-tuple-element(%c), index=0
  %v = f32[10]{0} get-tuple-element(%c), index=1
  %f = f32[10]{0} fusion(%v), kind=kLoop, calls=%inner
  ROOT %r = (s32[], f32[10]{0}) tuple(%n, %f)
}

%until (d: (s32[], f32[10])) -> pred[] {
  %d = (s32[], f32[10]{0}) parameter(0)
  %m = s32[] get-tuple-element(%d), index=0
  ROOT %p = pred[] compare(%m, %m), direction=LT
}

ENTRY %main (x: f32[100,10], k: s32[], y: f32[10]) -> f32[10] {
  %x = f32[100,10]{1,0} parameter(0)
  %k = s32[] parameter(1)
  %y = f32[10]{0} parameter(2)
  %g = f32[1,10]{1,0} fusion(%x, %k), kind=kLoop, calls=%sliced
  %q = (s32[], f32[10]{0}) tuple(%k, %y)
  %w = (s32[], f32[10]{0}) while(%q), condition=%until, body=%body, metadata={op_name="LOOP"}KNOWN
  ROOT %o = f32[10]{0} get-tuple-element(%w), index=1
}
"""


@pytest.mark.parametrize(
    ("where", "known", "times"),
    [
        ("jit(f)/while", ', backend_config={"known_trip_count":{"n":"7"}}', 7),
        ("jit(f)/shard_map/while", "", 3),
        ("jit(f)/while", "", 1),
    ],
)
def test_loops_fusions_and_slices(where, known, times):
    text = PROGRAM.replace("LOOP", where).replace("KNOWN", known)
    found = count_traffic(text, TRIPS)
    # a slice reads what it takes and its index, and writes it; the loop reads and writes ten floats each time
    assert found.bytes == (40 + 4 + 40) + times * 80
    assert found.kernels == 1 + times


def test_sizes_of_types():
    assert size_of("f32[3,4]{1,0}") == 48
    assert size_of("(s32[], (bf16[5]{0}, pred[2]), u8[])") == 4 + 10 + 2 + 1


def test_a_real_program():
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)

    def call(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ x), None), x, None, length=9)[0]

    text = jax.jit(call).lower(x).compile().as_text()
    computations, entry = parse(text)
    assert entry in computations and len(computations) > 2
    product, activation = 3 * 4 * 64 * 64, 2 * 4 * 64 * 64
    once = count_traffic(text.replace('known_trip_count":{"n":"9"}', 'known_trip_count":{"n":"1"}'), TRIPS).bytes
    assert 8 * product <= count_traffic(text, TRIPS).bytes - once <= 8 * (product + 2 * activation)
