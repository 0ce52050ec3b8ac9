"""The pure core of dispatch: no clock, no I/O, no randomness, no asyncio.

Commands go in, events and effects come out; whoever calls supplies `now_ms` and writes what is returned.
"""
