from math import atan2, cos, hypot, inf, nan, pi, radians, sin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.geo import EARTH_RADIUS_M, FARTHEST_M, Point, distance_m, haversine_m

latitudes = st.sampled_from((-90.0, -89.9999, 0.0, 89.9999, 90.0)) | st.floats(-90.0, 90.0)
longitudes = st.sampled_from((-180.0, -179.9999, 0.0, 179.9999, 180.0)) | st.floats(-180.0, 180.0)
points = st.builds(Point, latitudes, longitudes)

ROUNDING_M = 0.5
"""What haversine loses next to the antipode."""


def by_vectors_m(a: Point, b: Point) -> float:
    """The same angle by another road: between two vectors, atan2(|a x b|, a . b)."""

    def vector(point: Point) -> tuple[float, float, float]:
        lat, lng = radians(point.lat), radians(point.lng)
        return cos(lat) * cos(lng), cos(lat) * sin(lng), sin(lat)

    (ax, ay, az), (bx, by, bz) = vector(a), vector(b)
    cross = hypot(ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    return EARTH_RADIUS_M * atan2(cross, ax * bx + ay * by + az * bz)


def test_agrees_with_a_published_example() -> None:
    """Nashville to Los Angeles: 2887.26 km if the radius is 6372.8 (rosettacode.org, Haversine formula)."""
    nashville, los_angeles = Point(36.12, -86.67), Point(33.94, -118.40)
    expected_m = 2_887_259.9506071106 * EARTH_RADIUS_M / 6_372_800.0
    assert distance_m(nashville, los_angeles) == pytest.approx(expected_m, abs=0.001)


def test_a_degree_of_latitude_is_111195_m() -> None:
    assert distance_m(Point(19.0, 72.8), Point(20.0, 72.8)) == pytest.approx(111_195.0802, abs=0.0001)


@given(points, points)
def test_agrees_with_the_angle_between_vectors(a: Point, b: Point) -> None:
    assert distance_m(a, b) == pytest.approx(by_vectors_m(a, b), rel=1e-9, abs=ROUNDING_M)


@given(points, points)
def test_is_the_same_bits_both_ways_and_never_more_than_half_the_circumference(a: Point, b: Point) -> None:
    assert 0.0 <= distance_m(a, b) == distance_m(b, a) <= FARTHEST_M


@given(points, points, points)
def test_no_detour_is_shorter(a: Point, b: Point, detour: Point) -> None:
    assert distance_m(a, b) <= distance_m(a, detour) + distance_m(detour, b) + ROUNDING_M


@given(points)
def test_a_place_is_no_distance_from_itself(a: Point) -> None:
    assert distance_m(a, a) == 0.0


@given(points)
def test_the_antipode_is_half_the_circumference_away(a: Point) -> None:
    antipode = Point(-a.lat, a.lng - 180.0 if a.lng > 0.0 else a.lng + 180.0)
    assert distance_m(a, antipode) == pytest.approx(FARTHEST_M, abs=ROUNDING_M)


def test_rounding_beyond_the_antipode_is_the_antipode() -> None:
    assert haversine_m(0.0, 0.0, 1.0, 0.0, pi, 1.0 + 1e-15) == FARTHEST_M


def test_tells_centimetres_apart() -> None:
    assert distance_m(Point(19.0, 72.8), Point(19.0000001, 72.8)) == pytest.approx(0.01111951, rel=1e-4)


def test_a_pole_is_one_place_whatever_its_longitude() -> None:
    assert distance_m(Point(90.0, -33.0), Point(90.0, 120.0)) == pytest.approx(0.0, abs=1e-6)
    assert distance_m(Point(90.0, 77.0), Point(0.0, -12.0)) == pytest.approx(pi / 2 * EARTH_RADIUS_M)


def test_the_antimeridian_is_no_edge() -> None:
    assert distance_m(Point(10.0, 180.0), Point(10.0, -180.0)) == pytest.approx(0.0, abs=1e-6)
    across = distance_m(Point(0.0, 179.5), Point(0.0, -179.5))
    assert across == pytest.approx(distance_m(Point(0.0, -0.5), Point(0.0, 0.5)))


@pytest.mark.parametrize("lat", [-90.0000001, 90.0000001, inf, -inf, nan])
def test_a_latitude_off_the_earth_is_refused(lat: float) -> None:
    with pytest.raises(ValueError, match="latitude"):
        Point(lat, 0.0)


@pytest.mark.parametrize("lng", [-180.0000001, 180.0000001, inf, -inf, nan])
def test_a_longitude_off_the_earth_is_refused(lng: float) -> None:
    with pytest.raises(ValueError, match="longitude"):
        Point(0.0, lng)
