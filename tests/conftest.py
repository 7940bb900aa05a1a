"""Strict mode for the whole suite, and four CPU devices, set before anything touches a device; how XLA compiles a module."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

import jax
import pytest
from jax._src import compiler  # no public switch changes how a part of a process is compiled

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
_CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(_CACHE)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # what one worker compiled, the others load
if len(jax.devices()) != 4:
    raise RuntimeError(f"the suite needs 4 CPU devices, found {len(jax.devices())}: something used a device too early")
sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for `import toy`, whatever pytest's import mode

# half the compile time; the same mathematics, other last digits, and slower loops
_QUICK = (
    ("xla_backend_optimization_level", 0),
    ("xla_llvm_disable_expensive_passes", True),
    ("xla_cpu_use_fusion_emitters", False),
)
_options = compiler.get_compile_options
_quick = False


def _get_compile_options(*args: Any, **kwargs: Any) -> Any:
    """JAX's own, with `_QUICK` while a module marked `quick_compile` runs; they are part of the cache's key."""
    options = _options(*args, **kwargs)
    if _quick:
        options.env_option_overrides = [*options.env_option_overrides, *_QUICK]
    return options


compiler.get_compile_options = _get_compile_options


@pytest.fixture(autouse=True, scope="module")
def _compile_as_marked(request: pytest.FixtureRequest) -> None:
    """Programs of the two kinds are never mixed: a module that compares bits has every one of them as a run has it."""
    global _quick
    quick = request.node.get_closest_marker("quick_compile") is not None
    if quick != _quick:
        jax.clear_caches()
        _quick = quick
