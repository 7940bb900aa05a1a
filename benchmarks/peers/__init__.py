"""The work of `benchmarks.work`, once in each peer system: one module and one pinned requirements file a system."""
