"""The tables of the journal.

Every key begins with tenant_id: two tenants may use the same ids. Times are milliseconds since 1970. Ids are compared
byte by byte (COLLATE "C"), as everywhere else in haulcast. Documents are TEXT: nothing in here looks into them.

What an ordinary checkpoint changes (status, seq, state, times that are not deadlines) is in no index, neither as a
column nor in a condition, and the pages of what is updated have room: such an update stays on its page (HOT) and
touches no index. Events, offers and assignments have no foreign key to their broadcast: they are only ever written by
the statement that has it locked.

While a table is small all its indexes seem equally good, since all of them begin with the tenant. So that the planner
takes the right one from the first row on, those that are not primary keys have a condition that is always true, but
that only the queries meet which they are made for: that their column is not NULL is implied by comparing it.
"""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    # The oldest schema whose code may still work with this one: raised by a revision that older code cannot live with.
    """
    CREATE TABLE compatibility (
        only_row BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_row),
        min_version TEXT NOT NULL
    )
    """,
    "INSERT INTO compatibility (min_version) VALUES ('0001')",
    # One number for each start of a server. A number is given once and never again.
    "CREATE SEQUENCE incarnations AS BIGINT",
    # Nodes that the others have given up.
    """
    CREATE TABLE lost_nodes (
        incarnation BIGINT PRIMARY KEY,
        lost_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    # A tenant, and how dispatch works for it. Nothing refers to this table: whether a tenant exists is asked when a
    # token is checked, not again by each write.
    """
    CREATE TABLE tenants (
        tenant_id TEXT COLLATE "C" PRIMARY KEY,
        settings TEXT NOT NULL, -- JSON
        created_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE transporters (
        tenant_id TEXT COLLATE "C" NOT NULL,
        transporter_id TEXT COLLATE "C" NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (tenant_id, transporter_id)
    )
    """,
    """
    CREATE TABLE vehicles (
        tenant_id TEXT COLLATE "C" NOT NULL,
        vehicle_id TEXT COLLATE "C" NOT NULL,
        transporter_id TEXT COLLATE "C" NOT NULL,
        vehicle_type TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (tenant_id, vehicle_id),
        FOREIGN KEY (tenant_id, transporter_id) REFERENCES transporters
    )
    """,
    """
    CREATE TABLE drivers (
        tenant_id TEXT COLLATE "C" NOT NULL,
        driver_id TEXT COLLATE "C" NOT NULL,
        transporter_id TEXT COLLATE "C" NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (tenant_id, driver_id),
        FOREIGN KEY (tenant_id, transporter_id) REFERENCES transporters
    )
    """,
    # The current state of a broadcast. The columns repeat what the state says, for queries; (epoch, owner, seq) is the
    # fence that a write must match.
    """
    CREATE TABLE broadcasts (
        tenant_id TEXT COLLATE "C" NOT NULL,
        broadcast_id TEXT COLLATE "C" NOT NULL,
        customer_id TEXT COLLATE "C" NOT NULL,
        status TEXT NOT NULL,
        created_at_ms BIGINT NOT NULL,
        expires_at_ms BIGINT NOT NULL,
        ended_at_ms BIGINT, -- NULL while it is live
        next_deadline_at_ms BIGINT, -- NULL once it has ended
        epoch BIGINT NOT NULL, -- how often it changed owner
        owner BIGINT NOT NULL, -- the incarnation that may write
        seq BIGINT NOT NULL, -- the number of its events
        state TEXT NOT NULL, -- JSON, without the offers
        PRIMARY KEY (tenant_id, broadcast_id)
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)
    """,
    # What each node has to do next, so that what the dead ones leave behind is found without a look at the others'.
    """
    CREATE INDEX broadcasts_deadline ON broadcasts (owner, next_deadline_at_ms, tenant_id, broadcast_id)
    WHERE next_deadline_at_ms IS NOT NULL
    """,
    """
    CREATE INDEX broadcasts_newest ON broadcasts (tenant_id, created_at_ms, broadcast_id)
    WHERE created_at_ms > 0
    """,
    """
    CREATE INDEX broadcasts_newest_of_customer ON broadcasts (tenant_id, customer_id, created_at_ms, broadcast_id)
    WHERE created_at_ms > 0 AND customer_id IS NOT NULL
    """,
    # A customer has one live broadcast at most.
    """
    CREATE UNIQUE INDEX broadcasts_live_customer ON broadcasts (tenant_id, customer_id)
    WHERE ended_at_ms IS NULL
    """,
    # What happened to a broadcast; replaying its events gives its state.
    """
    CREATE TABLE events (
        tenant_id TEXT COLLATE "C" NOT NULL,
        broadcast_id TEXT COLLATE "C" NOT NULL,
        seq BIGINT NOT NULL, -- from 1, without gaps
        name TEXT NOT NULL,
        body TEXT NOT NULL, -- JSON
        write_id TEXT COLLATE "C" NOT NULL, -- the write that it came with, by which a resubmitted one is recognised
        PRIMARY KEY (tenant_id, broadcast_id, seq)
    )
    """,
    # That a transporter was shown a broadcast. ended_at_ms is the broadcast's own, repeated so that a transporter's
    # open and lately closed offers are one look-up, however many it ever had.
    """
    CREATE TABLE offers (
        tenant_id TEXT COLLATE "C" NOT NULL,
        broadcast_id TEXT COLLATE "C" NOT NULL,
        transporter_id TEXT COLLATE "C" NOT NULL,
        wave INTEGER NOT NULL,
        vehicle_id TEXT COLLATE "C" NOT NULL,
        vehicle_type TEXT NOT NULL,
        distance_m BIGINT NOT NULL,
        offered_at_ms BIGINT NOT NULL,
        declined BOOLEAN NOT NULL,
        ended_at_ms BIGINT, -- NULL while the broadcast is live
        PRIMARY KEY (tenant_id, broadcast_id, transporter_id)
    ) WITH (fillfactor = 90)
    """,
    """
    CREATE INDEX offers_of_transporter ON offers (tenant_id, transporter_id, ended_at_ms)
    WHERE transporter_id IS NOT NULL
    """,
    # A truck request that was won, and the trip it became. `active` repeats what the trip's status means, so that the
    # indexes below are not touched by a trip that comes further.
    """
    CREATE TABLE assignments (
        tenant_id TEXT COLLATE "C" NOT NULL,
        broadcast_id TEXT COLLATE "C" NOT NULL,
        request_id TEXT COLLATE "C" NOT NULL,
        assignment_id TEXT COLLATE "C" NOT NULL,
        trip_id TEXT COLLATE "C" NOT NULL,
        transporter_id TEXT COLLATE "C" NOT NULL,
        vehicle_id TEXT COLLATE "C" NOT NULL,
        driver_id TEXT COLLATE "C" NOT NULL,
        vehicle_type TEXT NOT NULL,
        trip_status TEXT NOT NULL,
        active BOOLEAN NOT NULL,
        assigned_at_ms BIGINT NOT NULL,
        updated_at_ms BIGINT NOT NULL,
        PRIMARY KEY (tenant_id, broadcast_id, request_id)
    ) WITH (fillfactor = 80)
    """,
    # A vehicle is on one active trip at most, and so is a driver.
    """
    CREATE UNIQUE INDEX assignments_active_vehicle ON assignments (tenant_id, vehicle_id)
    WHERE active AND vehicle_id IS NOT NULL
    """,
    """
    CREATE UNIQUE INDEX assignments_active_driver ON assignments (tenant_id, driver_id)
    WHERE active AND driver_id IS NOT NULL
    """,
    """
    CREATE INDEX assignments_active_transporter ON assignments (tenant_id, transporter_id)
    WHERE active AND transporter_id IS NOT NULL
    """,
    # A final answer under the client's own id, until it is purged.
    """
    CREATE TABLE request_log (
        tenant_id TEXT COLLATE "C" NOT NULL,
        role TEXT COLLATE "C" NOT NULL,
        user_id TEXT COLLATE "C" NOT NULL,
        request_id TEXT COLLATE "C" NOT NULL,
        fingerprint TEXT COLLATE "C" NOT NULL, -- of the command, since a key must not be reused for another
        reply TEXT NOT NULL, -- JSON
        at_ms BIGINT NOT NULL,
        write_id TEXT COLLATE "C" NOT NULL, -- the write that it came with
        PRIMARY KEY (tenant_id, role, user_id, request_id)
    )
    """,
    "CREATE INDEX request_log_age ON request_log (at_ms)",
)

OF_TENANTS = (
    "tenants",
    "transporters",
    "vehicles",
    "drivers",
    "broadcasts",
    "events",
    "offers",
    "assignments",
    "request_log",
)

# Who may do what. haulcast_node acts for all tenants; haulcast_tenant for the one that its connection names, and for
# none before it has. FORCE: not even the owner of the tables sees a row without having taken one of the two.
RIGHTS = (
    "GRANT USAGE ON SCHEMA haulcast TO haulcast_node, haulcast_tenant",
    "GRANT USAGE ON SEQUENCE incarnations TO haulcast_node",
    "GRANT SELECT ON alembic_version, compatibility TO haulcast_node",
    "GRANT SELECT, INSERT ON lost_nodes TO haulcast_node",
    "GRANT SELECT ON vehicles, drivers TO haulcast_node",
    "GRANT SELECT, INSERT, UPDATE ON broadcasts, events, offers, assignments, request_log TO haulcast_node",
    "GRANT DELETE ON request_log TO haulcast_node",
    "GRANT SELECT ON broadcasts, events, offers, assignments TO haulcast_tenant",
    "GRANT SELECT, INSERT ON tenants TO haulcast_tenant",
    "GRANT SELECT, INSERT, UPDATE ON transporters, vehicles, drivers TO haulcast_tenant",
    *(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY" for table in OF_TENANTS),
    *(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY" for table in OF_TENANTS),
    *(f"CREATE POLICY every_tenant ON {table} TO haulcast_node USING (true)" for table in OF_TENANTS),
    *(
        f"CREATE POLICY one_tenant ON {table} TO haulcast_tenant"
        " USING (tenant_id = current_setting('haulcast.tenant', true))"
        for table in OF_TENANTS
    ),
)


def upgrade() -> None:
    for statement in (*STATEMENTS, *RIGHTS):
        op.execute(statement)
