"""Data: schemas, populations, simulators, and adapters of real formats."""
