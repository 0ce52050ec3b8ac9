"""What an examination comes to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `advice` is empty when it is fine; `fatal` ones keep the server from starting."""

    subject: str
    found: str
    advice: str = ""
    fatal: bool = False
