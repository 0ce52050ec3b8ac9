"""What a tenant may choose about dispatch, with the defaults in one place."""

from dataclasses import dataclass
from itertools import pairwise

MAX_RADIUS_KM = 20_100.0
"""Half of the Earth's circumference, rounded up: no two places are farther apart."""

MAX_TOGGLE_WINDOW_S = 86_400


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


def _check(fine: bool, field: str, value: object, allowed: str) -> None:
    if not fine:
        raise InvalidSetting(field, value, allowed)


def _within(field: str, value: float, low: float, high: float) -> None:
    _check(low <= value <= high, field, value, f"{low:g} to {high:g}")
