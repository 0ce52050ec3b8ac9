"""What the journal says, read with nothing but SQL: the tests' own view of what is durable."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Assignment:
    """A truck request that was won."""

    broadcast_id: str
    request_id: str
    trip_id: str
    transporter_id: str
    vehicle_id: str
    driver_id: str
    trip_status: str


class Books:
    """The journal of one tenant. Reads the file each time, whether a server runs on it or not."""

    def __init__(self, journal: Path, tenant: str) -> None:
        self._journal = journal
        self._tenant = tenant

    def assignments(self) -> list[Assignment]:
        """Every truck that was ever won."""
        return [
            Assignment(*row)
            for row in self._rows(
                "SELECT broadcast_id, request_id, trip_id, transporter_id, vehicle_id, driver_id, trip_status"
                " FROM assignments WHERE tenant_id = ?"
            )
        ]

    def statuses(self) -> dict[str, str]:
        """The status of every broadcast."""
        return dict(self._rows("SELECT broadcast_id, status FROM broadcasts WHERE tenant_id = ?"))

    def replies(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every logged reply, by user and request id."""
        return {
            (user, request): json.loads(reply)
            for user, request, reply in self._rows(
                "SELECT user_id, request_id, reply FROM request_log WHERE tenant_id = ?"
            )
        }

    def event_names(self, broadcast_id: str) -> list[str]:
        """What has happened to a broadcast, in order."""
        rows = self._rows("SELECT name, broadcast_id FROM events WHERE tenant_id = ? ORDER BY seq")
        return [name for name, of in rows if of == broadcast_id]

    def _rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self._journal, timeout=10.0)) as connection:
            return connection.execute(query, (self._tenant,)).fetchall()
