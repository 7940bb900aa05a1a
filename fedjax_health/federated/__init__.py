"""The federated engine."""
