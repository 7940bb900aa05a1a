"""Federated, private generation of synthetic health-IoT data, in one compiled JAX program."""

__version__ = "0.1.0"
