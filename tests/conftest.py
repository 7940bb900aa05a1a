"""Strict mode for the whole suite, and four CPU devices, set before anything touches a device."""

from __future__ import annotations

import os
import pathlib
import sys

import jax

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
_CACHE = pathlib.Path(__file__).parents[1] / ".jax_cache"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(_CACHE)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
if len(jax.devices()) != 4:
    raise RuntimeError(f"the suite needs 4 CPU devices, found {len(jax.devices())}: something used a device too early")
sys.path.insert(0, str(pathlib.Path(__file__).parent))  # for `import toy`, whatever pytest's import mode
