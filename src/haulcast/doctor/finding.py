"""What an examination comes to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `advice` is empty when it is fine; `fatal` ones keep the server from starting; `details`
    are lines to show below."""

    subject: str
    found: str
    advice: str = ""
    fatal: bool = False
    details: tuple[str, ...] = ()
