"""What a tenant may choose about dispatch, with the defaults in one place."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from .modes import DEFAULT_MODE, MODES, Mode

MAX_RADIUS_KM = 20_100.0
"""Half of the Earth's circumference, rounded up: no two places are farther apart."""

MAX_TOGGLE_WINDOW_S = 86_400


class ActiveBroadcastPolicy(StrEnum):
    """What to do with a second live broadcast of one customer."""

    REJECT = "reject"
    """Refuse the new one."""
    REPLACE = "replace"
    """Cancel the old one."""


class InvalidSetting(ValueError):
    """A setting has a value that cannot work. `field` names it and `allowed` says what would be right."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r} is not allowed; give {allowed}")
        self.field = field
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """A tenant's dispatch settings; building one with a value that cannot work raises `InvalidSetting`."""

    wave_radii_km: tuple[float | None, ...] = (10.0, 25.0, 50.0, 75.0, None)
    """The radius of each wave, growing; None reaches everybody online that matches and can only come last."""
    wave_interval_s: float = 15.0
    max_offers_per_wave: int = 500
    """How many transporters one wave reaches at most, nearest first; who is left over comes with the next."""
    default_expiry_s: int = 300
    min_expiry_s: int = 10
    max_expiry_s: int = 86_400
    reminder_lead_s: int = 60
    """How long before the expiry the customer is reminded; a broadcast shorter than this is not."""
    toggle_limit: int = 10
    """How many times in `toggle_window_s` a transporter may go online or offline."""
    toggle_window_s: int = 300
    dispatch_mode: str = DEFAULT_MODE
    """The name of one of `modes.MODES`: how trucks are found, and who of those who accept gets one."""
    accept_window_s: float = 3.0
    """How long a mode that does not take the first who accepts waits for others."""
    active_broadcast_policy: ActiveBroadcastPolicy = ActiveBroadcastPolicy.REJECT
    """What becomes of a customer's live broadcast when the customer creates another one."""
    requests_per_s: float | None = None
    """How many requests a phone may make in the long run; None, or more than the server allows: what that allows."""
    request_burst: int | None = None
    """How many it may make at once; None, or more than the server allows: what that allows."""
    announcements_per_hour: int = 20

    def __post_init__(self) -> None:
        _check(1 <= len(self.wave_radii_km) <= 20, "wave_radii_km", self.wave_radii_km, "1 to 20 radii")
        bounded = [radius for radius in self.wave_radii_km if radius is not None]
        _check(
            all(0 < radius <= MAX_RADIUS_KM for radius in bounded)
            and all(a < b for a, b in pairwise(bounded))
            and None not in self.wave_radii_km[:-1],
            "wave_radii_km",
            self.wave_radii_km,
            f"growing radii above 0 and up to {MAX_RADIUS_KM:.0f} km, null only as the last",
        )
        _within("wave_interval_s", self.wave_interval_s, 0.1, 3_600)
        _within("max_offers_per_wave", self.max_offers_per_wave, 1, 10_000)
        _within("min_expiry_s", self.min_expiry_s, 1, 604_800)
        _within("max_expiry_s", self.max_expiry_s, self.min_expiry_s, 604_800)
        _within("default_expiry_s", self.default_expiry_s, self.min_expiry_s, self.max_expiry_s)
        _within("reminder_lead_s", self.reminder_lead_s, 1, 86_400)
        _within("toggle_limit", self.toggle_limit, 1, 1_000)
        _within("toggle_window_s", self.toggle_window_s, 1, MAX_TOGGLE_WINDOW_S)
        _check(self.dispatch_mode in MODES, "dispatch_mode", self.dispatch_mode, f"one of {', '.join(MODES)}")
        _within("accept_window_s", self.accept_window_s, 0.1, 60)
        if self.requests_per_s is not None:
            _within("requests_per_s", self.requests_per_s, 0.1, 10_000)
        if self.request_burst is not None:
            _within("request_burst", self.request_burst, 1, 10_000)
        _within("announcements_per_hour", self.announcements_per_hour, 1, 100)

    @property
    def mode(self) -> Mode:
        """The dispatch mode itself."""
        return MODES[self.dispatch_mode]


def _check(fine: bool, field: str, value: object, allowed: str) -> None:
    if not fine:
        raise InvalidSetting(field, value, allowed)


def _within(field: str, value: float, low: float, high: float) -> None:
    _check(low <= value <= high, field, value, f"{low:g} to {high:g}")
