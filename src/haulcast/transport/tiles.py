"""Where the console's map gets its background from, if from anywhere: a tile server that the deployment chooses."""

import re
from dataclasses import dataclass
from typing import Self

_TEMPLATE = re.compile(r"(?P<origin>https?://[a-z0-9.-]+(?::[0-9]{1,5})?)/[!#-~]*", re.IGNORECASE)
"""An origin without anything that could mean something else in a header, and a path of printable ASCII. Not of an IPv6
address: a content security policy cannot name one."""
_PLACEHOLDERS = ("{z}", "{x}", "{y}")


@dataclass(frozen=True, slots=True)
class Tiles:
    """A tile server: the address of a tile, with `{z}`, `{x}` and `{y}` in it, and whom the map has to name."""

    url: str
    attribution: str

    @classmethod
    def parse(cls, url: str, attribution: str) -> Self:
        """Raises `ValueError`, with what is wrong as a part of a sentence."""
        if not _TEMPLATE.fullmatch(url):
            raise ValueError("is not an http:// or https:// address without a user, in printable ASCII")
        if missing := [name for name in _PLACEHOLDERS if name not in url]:
            raise ValueError(f"lacks {', '.join(missing)}")
        return cls(url, attribution)

    @property
    def origin(self) -> str:
        """What the page has to be allowed to show images of."""
        match = _TEMPLATE.fullmatch(self.url)
        assert match is not None
        return match["origin"].lower()
