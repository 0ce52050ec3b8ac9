"""When the next wave goes out and how far it reaches.

1. Wave 1 is due when the broadcast is created; each further one `wave_interval_s` after the one before was due.
2. A wave that goes out late by more than half an interval (its node was away) pushes the next one to a full interval
   from now: nearer transporters keep their head start and a restart causes no burst.
3. After the last radius there is another wave only while the last one left somebody out for `max_offers_per_wave`.
"""

from .settings import TenantSettings

MAX_LEFT_OUT = 20
"""How many of those whom it did not reach a wave records, the nearest: they stay in the journal for good."""


def radius_m(settings: TenantSettings, wave: int) -> float | None:
    """How far `wave` (from 1) reaches in metres; None means everybody. Beyond the last radius it stays the last.

    Before the first wave nobody has been reached: 0.
    """
    if wave == 0:
        return 0.0
    radius_km = settings.wave_radii_km[min(wave, len(settings.wave_radii_km)) - 1]
    return None if radius_km is None else radius_km * 1000


def next_wave_at(settings: TenantSettings, wave: int, due_at_ms: int, now_ms: int, more: bool) -> int | None:
    """When the wave after `wave`, which was due at `due_at_ms`, is due; None if there is none.

    `more` says whether `wave` could not reach everybody who matched.
    """
    if wave >= len(settings.wave_radii_km) and not more:
        return None
    interval_ms = round(settings.wave_interval_s * 1000)
    on_schedule = due_at_ms + interval_ms
    return on_schedule if on_schedule - now_ms >= interval_ms / 2 else now_ms + interval_ms
