"""The adapters of the stores: a package for each technology, and what they share in how values are written down.

`sqlite` is the durable journal of a single process and `postgres` that of a cluster, `redis` holds what the nodes of
one share, `memory` is both without durability, for simulations and single processes. All adapters of a port pass its
suite in `tests/contract/`.
"""
