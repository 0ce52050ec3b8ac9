"""The tables of the journal.

Every key begins with tenant_id: two tenants may use the same ids. Times are milliseconds since 1970.
"""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    # A tenant, and how dispatch works for it. Nothing refers to this table: whether a tenant exists is asked when a
    # token is checked, not again by each write.
    """
    CREATE TABLE tenants (
        tenant_id TEXT NOT NULL PRIMARY KEY,
        settings TEXT NOT NULL,  -- JSON
        created_at_ms INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000)
    ) STRICT, WITHOUT ROWID
    """,
    # One row for each start of a server. A number is given once and never again.
    """
    CREATE TABLE incarnations (
        incarnation INTEGER PRIMARY KEY AUTOINCREMENT,
        started_at_ms INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000)
    ) STRICT
    """,
    """
    CREATE TABLE transporters (
        tenant_id TEXT NOT NULL,
        transporter_id TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (tenant_id, transporter_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE vehicles (
        tenant_id TEXT NOT NULL,
        vehicle_id TEXT NOT NULL,
        transporter_id TEXT NOT NULL,
        vehicle_type TEXT NOT NULL,
        PRIMARY KEY (tenant_id, vehicle_id),
        FOREIGN KEY (tenant_id, transporter_id) REFERENCES transporters
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE drivers (
        tenant_id TEXT NOT NULL,
        driver_id TEXT NOT NULL,
        transporter_id TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (tenant_id, driver_id),
        FOREIGN KEY (tenant_id, transporter_id) REFERENCES transporters
    ) STRICT, WITHOUT ROWID
    """,
    # The current state of a broadcast. The columns repeat what the state says, for queries; (epoch, owner, seq) is the
    # fence that a write must match. With a rowid, as states are too long to be kept in the tree of the key.
    """
    CREATE TABLE broadcasts (
        tenant_id TEXT NOT NULL,
        broadcast_id TEXT NOT NULL,
        customer_id TEXT NOT NULL,
        status TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        ended_at_ms INTEGER,  -- NULL while it is live
        next_deadline_at_ms INTEGER,  -- NULL once it has ended
        epoch INTEGER NOT NULL,  -- how often it changed owner
        owner INTEGER NOT NULL,  -- the incarnation that may write
        seq INTEGER NOT NULL,  -- the number of its events
        state TEXT NOT NULL,  -- JSON, without the offers
        PRIMARY KEY (tenant_id, broadcast_id)
    ) STRICT
    """,
    # A customer has one live broadcast at most.
    """
    CREATE UNIQUE INDEX broadcasts_live_customer ON broadcasts (tenant_id, customer_id)
    WHERE status IN ('searching', 'partially_filled')
    """,
    # Those that another incarnation owns, nearest deadline first, found in the index alone.
    """
    CREATE INDEX broadcasts_deadline ON broadcasts (next_deadline_at_ms, tenant_id, broadcast_id, owner)
    WHERE next_deadline_at_ms IS NOT NULL
    """,
    "CREATE INDEX broadcasts_newest ON broadcasts (tenant_id, created_at_ms, broadcast_id)",
    "CREATE INDEX broadcasts_newest_of_customer ON broadcasts (tenant_id, customer_id, created_at_ms, broadcast_id)",
    # What happened to a broadcast; replaying its events gives its state.
    """
    CREATE TABLE events (
        tenant_id TEXT NOT NULL,
        broadcast_id TEXT NOT NULL,
        seq INTEGER NOT NULL,  -- from 1, without gaps
        name TEXT NOT NULL,
        body TEXT NOT NULL,  -- JSON
        write_id TEXT NOT NULL,  -- the write that it came with, by which a resubmitted one is recognised
        PRIMARY KEY (tenant_id, broadcast_id, seq),
        FOREIGN KEY (tenant_id, broadcast_id) REFERENCES broadcasts
    ) STRICT
    """,
    # That a transporter was shown a broadcast. ended_at_ms is the broadcast's own, repeated so that a transporter's
    # open and lately closed offers are one look-up, however many it ever had.
    """
    CREATE TABLE offers (
        tenant_id TEXT NOT NULL,
        broadcast_id TEXT NOT NULL,
        transporter_id TEXT NOT NULL,
        wave INTEGER NOT NULL,
        vehicle_id TEXT NOT NULL,
        vehicle_type TEXT NOT NULL,
        distance_m INTEGER NOT NULL,
        offered_at_ms INTEGER NOT NULL,
        declined INTEGER NOT NULL,  -- 0 or 1
        ended_at_ms INTEGER,  -- NULL while the broadcast is live
        PRIMARY KEY (tenant_id, broadcast_id, transporter_id),
        FOREIGN KEY (tenant_id, broadcast_id) REFERENCES broadcasts
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX offers_of_transporter ON offers (tenant_id, transporter_id, ended_at_ms)",
    # A truck request that was won, and the trip it became.
    """
    CREATE TABLE assignments (
        tenant_id TEXT NOT NULL,
        broadcast_id TEXT NOT NULL,
        request_id TEXT NOT NULL,
        assignment_id TEXT NOT NULL,
        trip_id TEXT NOT NULL,
        transporter_id TEXT NOT NULL,
        vehicle_id TEXT NOT NULL,
        driver_id TEXT NOT NULL,
        vehicle_type TEXT NOT NULL,
        trip_status TEXT NOT NULL,
        assigned_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, broadcast_id, request_id),
        FOREIGN KEY (tenant_id, broadcast_id) REFERENCES broadcasts,
        FOREIGN KEY (tenant_id, vehicle_id) REFERENCES vehicles,
        FOREIGN KEY (tenant_id, driver_id) REFERENCES drivers
    ) STRICT, WITHOUT ROWID
    """,
    # A vehicle is on one active trip at most, and so is a driver.
    """
    CREATE UNIQUE INDEX assignments_active_vehicle ON assignments (tenant_id, vehicle_id)
    WHERE trip_status NOT IN ('delivered', 'cancelled')
    """,
    """
    CREATE UNIQUE INDEX assignments_active_driver ON assignments (tenant_id, driver_id)
    WHERE trip_status NOT IN ('delivered', 'cancelled')
    """,
    """
    CREATE INDEX assignments_active_transporter ON assignments (tenant_id, transporter_id)
    WHERE trip_status NOT IN ('delivered', 'cancelled')
    """,
    # A final answer under the client's own id, until it is purged.
    """
    CREATE TABLE request_log (
        tenant_id TEXT NOT NULL,
        role TEXT NOT NULL,
        user_id TEXT NOT NULL,
        request_id TEXT NOT NULL,
        fingerprint TEXT NOT NULL,  -- of the command, since a key must not be reused for another
        reply TEXT NOT NULL,  -- JSON
        at_ms INTEGER NOT NULL,
        write_id TEXT NOT NULL,  -- the write that it came with
        PRIMARY KEY (tenant_id, role, user_id, request_id)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX request_log_age ON request_log (at_ms)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
