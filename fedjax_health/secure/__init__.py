"""Secure aggregation: the server learns the sum of the clients' updates and no single one, in three fidelities.

`ring` sums in the clear, `masked` sums masked rows inside the compiled program, `protocol` exchanges real messages between
real parties with real cryptography; all three give the same uint32 sum, bit for bit.
"""
