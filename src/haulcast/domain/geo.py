"""Places on the earth, and the distance between them.

The earth is a sphere here. Against the ellipsoid that is wrong by up to 0.6 %, less than what a road adds to
any straight line.
"""

from dataclasses import dataclass
from math import asin, cos, pi, radians, sin, sqrt

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius (2a + b) / 3 (H. Moritz, Geodetic Reference System 1980, Journal of Geodesy 74, 2000)."""

FARTHEST_M = pi * EARTH_RADIUS_M
"""From a place to its antipode, half the circumference: no distance is greater."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place: latitude -90..90 and longitude -180..180, in degrees. All else, NaN too, is a ValueError.

    -180 and 180 are the same meridian and every longitude is the same pole, though such Points are not equal.
    """

    lat: float
    lng: float

    def __post_init__(self) -> None:
        if not -90.0 <= self.lat <= 90.0:
            raise ValueError(f"latitude {self.lat!r} is not within -90..90 degrees")
        if not -180.0 <= self.lng <= 180.0:
            raise ValueError(f"longitude {self.lng!r} is not within -180..180 degrees")


def distance_m(a: Point, b: Point) -> float:
    """Great-circle distance in metres; the same bits whichever of the two comes first."""
    lat_a = radians(a.lat)
    lat_b = radians(b.lat)
    return haversine_m(lat_a, radians(a.lng), cos(lat_a), lat_b, radians(b.lng), cos(lat_b))


def haversine_m(
    lat_a: float,
    lng_a: float,
    cos_lat_a: float,
    lat_b: float,
    lng_b: float,
    cos_lat_b: float,
) -> float:
    """`distance_m` for a caller that keeps the radians and the cosine of each latitude, as an index does.

    The haversine formula (R. W. Sinnott, Virtues of the Haversine, Sky & Telescope 68, 1984). Its rounding is
    well under a millimetre over the length of a haul, and some decimetres next to the antipode.
    """
    half_lat = sin((lat_b - lat_a) / 2)
    half_lng = sin((lng_b - lng_a) / 2)
    h = half_lat * half_lat + cos_lat_a * cos_lat_b * (half_lng * half_lng)
    # Rounding may lift h above 1 next to the antipode, where asin has no value.
    return 2 * EARTH_RADIUS_M * asin(sqrt(h)) if h < 1.0 else FARTHEST_M
