"""When the next wave goes out and how far it reaches.

1. Wave 1 is due when the broadcast is created; each further one `wave_interval_s` after the one before was due.
2. A wave that goes out late by more than half an interval (its node was away, or the tenant was paused) pushes the next
   one to a full interval from now: nearer transporters keep their head start and a restart causes no burst.
3. After the last radius there is another wave only while the last one left somebody out for `max_offers_per_wave`.
4. The radii and that limit are those of the mode in force. They may change between any two waves, and wave n always has
   the n-th radius in force, or the last one if there are fewer: what was sent does not count anew.
5. A broadcast that has no further wave due gets one at once when the last radius in force goes farther than any wave of
   it has reached; the following ones come as after any other. Nobody is offered it twice, and a reach that has shrunk
   takes nothing back.
6. While the tenant is paused no wave is sought or sent. One that comes due is held: that is noted once, so that it is
   no deadline which others could think was missed, and it is overdue when the tenant goes on.
"""

from .broadcast import Broadcast
from .control import TenantControl
from .settings import TenantSettings

MAX_LEFT_OUT = 20
"""How many of those whom it did not reach a wave records, the nearest: they stay in the journal for good."""


def radius_m(settings: TenantSettings, wave: int) -> float | None:
    """How far `wave` (from 1) reaches in metres; None means everybody. Beyond the last radius it stays the last.

    Before the first wave nobody has been reached: 0.
    """
    if wave == 0:
        return 0.0
    radii_km = settings.mode.radii_km(settings.wave_radii_km)
    radius_km = radii_km[min(wave, len(radii_km)) - 1]
    return None if radius_km is None else radius_km * 1000


def offers_per_wave(settings: TenantSettings) -> int:
    """How many transporters a wave reaches at most."""
    return settings.mode.offers_per_wave(settings.max_offers_per_wave)


def farther(reach_m: float | None, than_m: float | None) -> bool:
    """Whether one reach goes beyond another; None reaches everybody."""
    return than_m is not None and (reach_m is None or reach_m > than_m)


def next_wave_at(settings: TenantSettings, wave: int, due_at_ms: int, now_ms: int, more: bool) -> int | None:
    """When the wave after `wave`, which was due at `due_at_ms`, is due; None if there is none.

    `more` says whether `wave` could not reach everybody who matched.
    """
    if wave >= _waves(settings) and not more:
        return None
    interval_ms = round(settings.wave_interval_s * 1000)
    on_schedule = due_at_ms + interval_ms
    return on_schedule if on_schedule - now_ms >= interval_ms / 2 else now_ms + interval_ms


def wave_due_at(state: Broadcast, control: TenantControl, now_ms: int) -> int | None:
    """When there is something to do about the next wave of a live broadcast: to send it, or while the tenant is paused
    to note that it is held. None: nothing."""
    if control.paused:
        return None if state.wave_held else state.next_wave_at_ms
    if state.next_wave_at_ms is not None:
        return state.next_wave_at_ms
    last_m = radius_m(control.settings, _waves(control.settings))
    return now_ms if farther(last_m, state.reached_m) else None


def _waves(settings: TenantSettings) -> int:
    """How many waves have a radius of their own."""
    return len(settings.mode.radii_km(settings.wave_radii_km))
