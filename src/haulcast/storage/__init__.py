"""The adapters of the stores: a package for each technology, and what they share in how values are written down.

`sqlite` is the durable journal of a single process, `memory` the same contract for simulations; both pass the suite
in `tests/contract/test_journal.py`.
"""
