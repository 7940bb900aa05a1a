"""How a command uses the machine it runs on."""

from __future__ import annotations

import os


def use_all_cores() -> None:
    """One CPU device a core, since a single one hardly uses the second core, and a cache of compiled programs that outlives
    the command; before JAX makes its first device."""
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)
    cache = os.path.join(os.path.expanduser("~"), ".cache", "fedjax_health", "xla")
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache)
