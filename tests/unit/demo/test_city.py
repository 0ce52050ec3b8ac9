"""The city: the same for the same seed, and such that a short run shows everything."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from haulcast.demo.city import CENTRE, NOWHERE, SHORTEST_EXPIRY_S, VEHICLE_TYPES, City, Place, Truck

places = st.builds(Place, st.floats(-80, 80), st.floats(-180, 180))


def test_the_same_seed_is_the_same_city() -> None:
    cities = [City(seed, transporters=20, customers=5, longest_expiry_s=40) for seed in (7, 7, 8)]
    assert cities[0].companies == cities[1].companies
    assert cities[0].companies != cities[2].companies
    orders = [[city.order(city.source("c1")) for _ in range(5)] for city in cities]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_every_company_can_work_and_no_id_is_used_twice() -> None:
    city = City(1, transporters=200, customers=1, longest_expiry_s=40)
    ids = [each for company in city.companies for each in (*company.drivers, *(t.vehicle_id for t in company.trucks))]
    assert len(ids) == len(set(ids))
    assert all(company.trucks and len(company.drivers) == len(company.trucks) for company in city.companies)
    assert {truck.vehicle_type for company in city.companies for truck in company.trucks} == {*VEHICLE_TYPES}


def test_orders_show_everything_and_keep_to_the_longest_expiry() -> None:
    city = City(1, transporters=1, customers=1, longest_expiry_s=20)
    orders = [city.order(city.source(f"c{number}")) for number in range(500)]
    assert all(SHORTEST_EXPIRY_S <= order.expires_in_s <= 20 for order in orders)
    assert all(order.expires_in_s == SHORTEST_EXPIRY_S for order in orders if order.pickup.distance_km(NOWHERE) < 6)
    assert any(order.pickup.distance_km(NOWHERE) < 6 for order in orders)
    assert any(order.expires_in_s > 15 and order.pickup.distance_km(CENTRE) > 12 for order in orders)
    assert any(len(order.trucks) > 1 for order in orders)
    assert any(order.cancel_after_s is not None for order in orders)
    assert any(order.twice for order in orders)


def test_no_company_is_near_nowhere() -> None:
    city = City(1, transporters=200, customers=1, longest_expiry_s=40)
    assert min(company.trucks[0].home.distance_km(NOWHERE) for company in city.companies) > 75


@given(places, st.floats(0, 6.28), st.floats(0.01, 100))
def test_a_place_is_as_far_away_as_was_asked_for(place: Place, bearing: float, distance_km: float) -> None:
    there = place.towards(bearing, distance_km)
    assert abs(place.distance_km(there) - distance_km) < 0.01
    assert -180 <= there.lng <= 180


def test_trucks_drive_to_where_they_are_going_and_no_faster_than_they_can() -> None:
    home = CENTRE
    truck = Truck("v1", "mini", home, home, home.towards(0, 2.0), trip_id="b1-1-t")
    for _ in range(20):
        before = truck.position
        truck.move(Random(1), 1.0)
        assert before.distance_km(truck.position) < 0.21
    assert truck.position == truck.destination
    truck.move(Random(1), 1.0)
    assert truck.position == truck.destination
    truck.trip_id = None
    truck.move(Random(1), 1.0)
    assert truck.destination.distance_km(home) <= 3.01
