"""The SQL of the journal but for the commit, by name. The tables and what their rows mean are in
`storage/migrations/postgres/versions`.

Parameters are bound, never formatted in; the comment of each query names them. Where the offers of a broadcast are
read with it they are in its row, as JSON text, so that both are of one snapshot.
"""

# --- Ownership -------------------------------------------------------------------------------------------------------
# Run as haulcast_node.

NEXT_INCARNATION = "SELECT nextval('incarnations') AS incarnation"

# incarnation
MARK_LOST = "INSERT INTO lost_nodes (incarnation) VALUES ($1) ON CONFLICT DO NOTHING"

# incarnation
LOST = "SELECT EXISTS (SELECT FROM lost_nodes WHERE incarnation = $1) AS lost"

# tenants, broadcasts, epochs: one array each; the new owner. Locked in the order of the keys, as a commit does.
CLAIM = """
WITH locked AS MATERIALIZED (
    SELECT claim.n, claim.tenant_id, claim.broadcast_id
    FROM (
        SELECT *
        FROM unnest($1::TEXT[], $2::TEXT[], $3::BIGINT[]) WITH ORDINALITY AS given (tenant_id, broadcast_id, epoch, n)
        ORDER BY tenant_id, broadcast_id, n
    ) AS claim
    CROSS JOIN LATERAL (
        SELECT
        FROM broadcasts
        WHERE broadcasts.tenant_id = claim.tenant_id AND broadcasts.broadcast_id = claim.broadcast_id
            AND broadcasts.epoch = claim.epoch
        FOR NO KEY UPDATE
    ) AS seen
)
UPDATE broadcasts
SET epoch = epoch + 1, owner = $4
FROM locked
WHERE broadcasts.tenant_id = locked.tenant_id AND broadcasts.broadcast_id = locked.broadcast_id
RETURNING locked.n, broadcasts.tenant_id, broadcasts.broadcast_id, epoch, state
"""

# the new owner, alive: an array, limit, share, overdue before or null.
# 1. Who owns anything that has a deadline is found by stepping from one owner to the next in the index.
# 2. Of each of those, what is due soonest is found by the index too: all of it if the owner is dead, what is overdue if
#    it is not. What somebody else is just writing or claiming is passed over rather than waited for.
# 3. Rendezvous hashing: of all that are alive, the one whose hash with the broadcast is highest is its heir. Every node
#    computes the same, and if one dies nothing moves but what would have been its own.
CLAIM_ORPHANS = """
WITH RECURSIVE owners (owner) AS (
    (SELECT owner FROM broadcasts WHERE next_deadline_at_ms IS NOT NULL ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (
        SELECT broadcasts.owner
        FROM broadcasts
        WHERE next_deadline_at_ms IS NOT NULL AND broadcasts.owner > owners.owner
        ORDER BY broadcasts.owner
        LIMIT 1
    )
    FROM owners
    WHERE owners.owner IS NOT NULL
),
orphans AS MATERIALIZED (
    SELECT orphan.*
    FROM owners
    CROSS JOIN LATERAL (
        SELECT tenant_id, broadcast_id, next_deadline_at_ms
        FROM broadcasts
        WHERE broadcasts.owner = owners.owner
            AND next_deadline_at_ms < CASE WHEN owners.owner = ANY ($2::BIGINT[]) THEN $5 ELSE 9223372036854775807 END
            AND (NOT $4 OR $1 = (
                SELECT member
                FROM unnest($2::BIGINT[]) AS member
                ORDER BY hashtextextended(broadcasts.broadcast_id, member) DESC, member
                LIMIT 1
            ))
        ORDER BY next_deadline_at_ms, tenant_id, broadcast_id
        LIMIT $3
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS orphan
    WHERE owners.owner <> $1
),
soonest AS MATERIALIZED (
    SELECT * FROM orphans ORDER BY next_deadline_at_ms, tenant_id, broadcast_id LIMIT $3
)
UPDATE broadcasts
SET epoch = epoch + 1, owner = $1
FROM soonest
WHERE broadcasts.tenant_id = soonest.tenant_id AND broadcasts.broadcast_id = soonest.broadcast_id
RETURNING broadcasts.tenant_id, broadcasts.broadcast_id, epoch, state, soonest.next_deadline_at_ms
"""

# tenants, broadcasts: one array each. Asked after a claim, by a statement of its own: what the former owner wrote while
# the claim waited for it is not in the snapshot of the claim.
OFFERS_OF_BROADCASTS = """
SELECT
    given.n,
    (
        SELECT json_agg(
            json_build_array(transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined)
            ORDER BY wave, offered_at_ms, distance_m, transporter_id
        )
        FROM offers
        WHERE offers.tenant_id = given.tenant_id AND offers.broadcast_id = given.broadcast_id
    ) AS offers
FROM unnest($1::TEXT[], $2::TEXT[]) WITH ORDINALITY AS given (tenant_id, broadcast_id, n)
ORDER BY n
"""

OWNED = "SELECT tenant_id, broadcast_id, epoch FROM broadcasts WHERE next_deadline_at_ms IS NOT NULL AND owner = $1"

ENGAGED_VEHICLES = "SELECT tenant_id, vehicle_id FROM assignments WHERE active ORDER BY tenant_id, vehicle_id"

# tenants: an array
CONTROL_VERSIONS = "SELECT tenant_id, control_version FROM tenants WHERE tenant_id = ANY ($1::TEXT[])"

# before, limit. Some of them, so that a commit never waits long; the oldest first, by the index.
PURGE_REQUESTS = """
WITH purged AS (
    DELETE FROM request_log
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM request_log WHERE at_ms < $1 ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) AS purged FROM purged
"""

# --- Reads of broadcasts ---------------------------------------------------------------------------------------------
# From here on, run as haulcast_tenant.

# tenant, broadcast
OWNER = "SELECT epoch, owner FROM broadcasts WHERE tenant_id = $1 AND broadcast_id = $2"

# tenant, broadcast. The offers are in the order in which they were made.
BROADCAST = """
SELECT
    epoch,
    state,
    (
        SELECT json_agg(
            json_build_array(transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined)
            ORDER BY wave, offered_at_ms, distance_m, transporter_id
        )
        FROM offers
        WHERE offers.tenant_id = broadcasts.tenant_id AND offers.broadcast_id = broadcasts.broadcast_id
    ) AS offers
FROM broadcasts
WHERE tenant_id = $1 AND broadcast_id = $2
"""

# tenant, broadcast
EVENTS_OF_BROADCAST = """
SELECT name, body
FROM events
WHERE tenant_id = $1 AND broadcast_id = $2
ORDER BY seq
"""

# tenant, limit. That it was created at some time is what the index wants to hear, here and below.
NEWEST_BROADCASTS = """
SELECT epoch, state
FROM broadcasts
WHERE tenant_id = $1 AND created_at_ms > 0
ORDER BY created_at_ms DESC, broadcast_id DESC
LIMIT $2
"""

# tenant, limit, customer
NEWEST_BROADCASTS_OF_CUSTOMER = """
SELECT epoch, state
FROM broadcasts
WHERE tenant_id = $1 AND customer_id = $3 AND created_at_ms > 0
ORDER BY created_at_ms DESC, broadcast_id DESC
LIMIT $2
"""

# tenant, ended after, after: an id, "" for none, limit. The live ones by one index, the lately ended ones by another,
# however many the tenant ever had; then by id. OFFSET keeps the planner from going by the primary key instead, through
# all of them; and with an upper bound it takes the range for a small one, also in a plan that knows no values.
BOARD = """
SELECT epoch, state
FROM (
    SELECT broadcast_id, epoch, state FROM broadcasts WHERE tenant_id = $1 AND ended_at_ms IS NULL
    UNION ALL
    SELECT broadcast_id, epoch, state FROM broadcasts
    WHERE tenant_id = $1 AND ended_at_ms > $2 AND ended_at_ms < 9223372036854775807
    OFFSET 0
) AS shown
WHERE broadcast_id > $3
ORDER BY broadcast_id
LIMIT $4
"""

# tenant, transporter, ended after. Two ranges of one index, however many offers the transporter ever had.
OFFERS_OF_TRANSPORTER = """
SELECT
    broadcasts.state, transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined
FROM (
    SELECT * FROM offers WHERE tenant_id = $1 AND transporter_id = $2 AND ended_at_ms IS NULL
    UNION ALL
    SELECT * FROM offers WHERE tenant_id = $1 AND transporter_id = $2 AND ended_at_ms > $3
) AS shown
JOIN broadcasts USING (tenant_id, broadcast_id)
ORDER BY offered_at_ms, broadcast_id
"""

# tenant, transporter
ACTIVE_TRIPS_OF_TRANSPORTER = """
SELECT broadcasts.state, trip_id
FROM assignments
JOIN broadcasts USING (tenant_id, broadcast_id)
WHERE tenant_id = $1 AND transporter_id = $2 AND active
ORDER BY assigned_at_ms, trip_id
"""

# tenant, driver
ACTIVE_TRIPS_OF_DRIVER = """
SELECT broadcasts.state, trip_id
FROM assignments
JOIN broadcasts USING (tenant_id, broadcast_id)
WHERE tenant_id = $1 AND driver_id = $2 AND active
ORDER BY assigned_at_ms, trip_id
"""

# --- Fleet, tenants --------------------------------------------------------------------------------------------------

# tenant, transporters: an array
KNOWN_TRANSPORTERS = (
    "SELECT transporter_id FROM transporters WHERE tenant_id = $1 AND transporter_id = ANY ($2::TEXT[])"
)

# tenant, then an array for each column of transporters, vehicles and drivers. Rows are locked in the order of their
# keys; that a vehicle's transporter is there is checked when all three are written.
PUT_FLEET = """
WITH put_transporters AS (
    INSERT INTO transporters (tenant_id, transporter_id, name)
    SELECT $1, transporter_id, name
    FROM unnest($2::TEXT[], $3::TEXT[]) AS given (transporter_id, name)
    ORDER BY transporter_id
    ON CONFLICT (tenant_id, transporter_id) DO UPDATE SET name = excluded.name
),
put_vehicles AS (
    INSERT INTO vehicles (tenant_id, vehicle_id, transporter_id, vehicle_type)
    SELECT $1, vehicle_id, transporter_id, vehicle_type
    FROM unnest($4::TEXT[], $5::TEXT[], $6::TEXT[]) AS given (vehicle_id, transporter_id, vehicle_type)
    ORDER BY vehicle_id
    ON CONFLICT (tenant_id, vehicle_id)
    DO UPDATE SET transporter_id = excluded.transporter_id, vehicle_type = excluded.vehicle_type
)
INSERT INTO drivers (tenant_id, driver_id, transporter_id, name)
SELECT $1, driver_id, transporter_id, name
FROM unnest($7::TEXT[], $8::TEXT[], $9::TEXT[]) AS given (driver_id, transporter_id, name)
ORDER BY driver_id
ON CONFLICT (tenant_id, driver_id) DO UPDATE SET transporter_id = excluded.transporter_id, name = excluded.name
"""

# tenant, vehicle
VEHICLE = "SELECT vehicle_id, transporter_id, vehicle_type FROM vehicles WHERE tenant_id = $1 AND vehicle_id = $2"

# tenant, driver
DRIVER = "SELECT driver_id, transporter_id, name FROM drivers WHERE tenant_id = $1 AND driver_id = $2"

# tenant, transporter. The vehicles with their types, then the drivers with their names, each by id.
FLEET = """
SELECT false AS is_driver, vehicle_id AS id, vehicle_type FROM vehicles WHERE tenant_id = $1 AND transporter_id = $2
UNION ALL
SELECT true, driver_id, name FROM drivers WHERE tenant_id = $1 AND transporter_id = $2
ORDER BY is_driver, id
"""

# tenant, settings, mode
CREATE_TENANT = """
INSERT INTO tenants (tenant_id, settings, mode)
VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING
RETURNING tenant_id
"""

# tenant
TENANT = "SELECT settings, paused, control_version, announcements FROM tenants WHERE tenant_id = $1"

# --- What operators do -----------------------------------------------------------------------------------------------

# tenant, the version to come
SETTINGS_TO_REPLACE = "SELECT settings FROM tenants WHERE tenant_id = $1 AND control_version = $2::BIGINT - 1"

# $1 to $11: the columns of `RecordColumns`. $12 to $16: those of `TenantColumns`, all NULL for a command that is not to
# a tenant. The row that was recorded under the key, before or now; none if nothing was written.
# 1. What was recorded before the statement began is seen by all its parts, and then they write nothing.
# 2. The tenant's row is locked by its update, which compares the version with that of the locked row. Whoever else is
#    at the same version waits, and then finds that it has been raised.
# 3. The number is that of the snapshot and may be taken by now, as may the key. Then the statement is taken back by the
#    unique index, the update of the tenant included.
RECORD_CONTROL = """
WITH earlier AS MATERIALIZED (
    SELECT *
    FROM control_log
    WHERE tenant_id = $1 AND role = $2 AND user_id = $3 AND request_id = $4
),
moved AS (
    UPDATE tenants
    SET settings = $12, paused = $13, mode = $14, control_version = $15, announcements = $16
    WHERE tenant_id = $1 AND control_version = $15::BIGINT - 1 AND NOT EXISTS (SELECT FROM earlier)
    RETURNING tenant_id
),
recorded AS (
    INSERT INTO control_log (
        number, tenant_id, role, user_id, request_id, fingerprint, command, data, at_ms, version, changes, outcome
    )
    SELECT
        1 + coalesce((SELECT max(number) FROM control_log WHERE tenant_id = $1), 0),
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
    WHERE NOT EXISTS (SELECT FROM earlier) AND ($15::BIGINT IS NULL OR EXISTS (SELECT FROM moved))
    RETURNING *
)
SELECT number, tenant_id, role, user_id, request_id, fingerprint, command, data, at_ms, version, changes, outcome
FROM (SELECT * FROM earlier UNION ALL SELECT * FROM recorded) AS known
"""

# tenant, role, user, request
CONTROL_RECORD = """
SELECT number, tenant_id, role, user_id, request_id, fingerprint, command, data, at_ms, version, changes, outcome
FROM control_log
WHERE tenant_id = $1 AND role = $2 AND user_id = $3 AND request_id = $4
"""

# tenant, number, outcome
FINISH_CONTROL = "UPDATE control_log SET outcome = $3 WHERE tenant_id = $1 AND number = $2 AND outcome IS NULL"

# tenant, before, limit, commands: an array, or NULL for all
CONTROL_LOG = """
SELECT number, tenant_id, role, user_id, request_id, fingerprint, command, data, at_ms, version, changes, outcome
FROM control_log
WHERE tenant_id = $1 AND number < $2 AND ($4::TEXT[] IS NULL OR command = ANY ($4::TEXT[]))
ORDER BY number DESC
LIMIT $3
"""
