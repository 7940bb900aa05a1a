"""Mechanisms' events, accounting, and the ledger."""
