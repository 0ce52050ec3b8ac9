"""Requests and addresses of other roles: all of them, for every role that may not."""

from collections.abc import Mapping

import pytest

from haulcast.ports import Role
from haulcast.transport import wire
from haulcast.transport.handlers import HANDLERS
from haulcast.transport.http import ROUTES, Route
from tests.acceptance.bad_input.bench import (
    Bench,
    Counted,
    Line,
    check_error,
    token,
)
from tests.acceptance.bad_input.wrong import (
    GOOD,
    address,
    in_body,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize(
    ("struct_", "role"),
    [
        pytest.param(struct_, role, id=f"{name}-{role}")
        for name, struct_ in wire.REQUESTS.items()
        if struct_ in HANDLERS
        for role in Role
        if role not in HANDLERS[struct_][0]
    ],
)
async def test_a_request_of_another_role_is_forbidden(
    edge: Bench, lines: Mapping[Role, Line], struct_: type[wire.Request], role: Role
) -> None:
    """For every request and every role that may not make it."""
    name = wire.TYPE_OF[struct_]
    async with edge.notices(Counted.request(name, "FORBIDDEN")):
        check_error(await lines[role].ask(name, GOOD[struct_]), "FORBIDDEN", None, "q")
    await lines[role].goes_on()


@pytest.mark.parametrize(
    ("route", "role"),
    [
        pytest.param(route, role, id=f"{route.method} {route.path}-{role}")
        for route in ROUTES
        for role in Role
        if role not in HANDLERS[route.request][0]
    ],
)
async def test_an_address_of_another_role_is_forbidden(edge: Bench, route: Route, role: Role) -> None:
    """403, for every address and every role that may not use it."""
    async with edge.notices(Counted.request(wire.TYPE_OF[route.request], "FORBIDDEN")):
        status, answer, _ = await edge.rest(
            route.method,
            address(route),
            token(role, "somebody"),
            in_body(route, GOOD[route.request]) if route.method != "GET" else None,
            **{"Idempotency-Key": "k"},
        )
        assert (status, answer["error"]["code"]) == (403, "FORBIDDEN")
