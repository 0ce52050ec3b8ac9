"""The SQL of the journal, by name. The tables and what their rows mean are in `storage/migrations/sqlite/versions`.

Parameters are named and bound, never formatted in. Lists of states stand here as in the partial indexes, word for
word: SQLite uses such an index only for a condition that it can recognise.
"""

# --- What a commit asks before it writes -----------------------------------------------------------------------------
# Each takes the keys of a whole batch as a JSON array of arrays and answers with one JSON array of rows: for why, see
# `facts.py`. CROSS JOIN makes SQLite go through the keys and look each up, not the other way round.

# key: tenant, role, user, request
LOGGED_REPLIES = """
SELECT json_group_array(json_array(tenant_id, role, user_id, request_id, write_id, fingerprint, reply))
FROM json_each(:keys) AS key
CROSS JOIN request_log ON
    tenant_id = json_extract(key.value, '$[0]') AND role = json_extract(key.value, '$[1]')
    AND user_id = json_extract(key.value, '$[2]') AND request_id = json_extract(key.value, '$[3]')
"""

# key: tenant, broadcast, customer. For each key the fence of the broadcast, if it exists, and the customer's live
# broadcast, which may be another.
POSITIONS = """
SELECT json_group_array(
    json_array(
        json_extract(key.value, '$[0]'), json_extract(key.value, '$[1]'), json_extract(key.value, '$[2]'),
        broadcast.epoch, broadcast.owner, broadcast.seq, broadcast.ended_at_ms IS NULL,
        (
            SELECT live.broadcast_id
            FROM broadcasts AS live
            WHERE live.tenant_id = json_extract(key.value, '$[0]')
                AND live.customer_id = json_extract(key.value, '$[2]')
                AND live.status IN ('searching', 'partially_filled')
        )
    )
)
FROM json_each(:keys) AS key
LEFT JOIN broadcasts AS broadcast ON
    broadcast.tenant_id = json_extract(key.value, '$[0]') AND broadcast.broadcast_id = json_extract(key.value, '$[1]')
"""

# key: tenant, vehicle, driver. For each key owner and type of the vehicle, whether it is on a trip, the employer of
# the driver, whether the driver is on a trip.
ASSIGNABLE = """
SELECT json_group_array(
    json_array(
        json_extract(key.value, '$[0]'), json_extract(key.value, '$[1]'), json_extract(key.value, '$[2]'),
        vehicle.transporter_id,
        vehicle.vehicle_type,
        EXISTS (
            SELECT 1 FROM assignments
            WHERE tenant_id = json_extract(key.value, '$[0]') AND vehicle_id = json_extract(key.value, '$[1]')
                AND trip_status NOT IN ('delivered', 'cancelled')
        ),
        driver.transporter_id,
        EXISTS (
            SELECT 1 FROM assignments
            WHERE tenant_id = json_extract(key.value, '$[0]') AND driver_id = json_extract(key.value, '$[2]')
                AND trip_status NOT IN ('delivered', 'cancelled')
        )
    )
)
FROM json_each(:keys) AS key
LEFT JOIN vehicles AS vehicle ON
    vehicle.tenant_id = json_extract(key.value, '$[0]') AND vehicle.vehicle_id = json_extract(key.value, '$[1]')
LEFT JOIN drivers AS driver ON
    driver.tenant_id = json_extract(key.value, '$[0]') AND driver.driver_id = json_extract(key.value, '$[2]')
"""

# Which write led to :seq.
WRITER_OF_EVENT = """
SELECT write_id
FROM events
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id AND seq = :seq
"""

LIVE_BROADCAST_OF_CUSTOMER = """
SELECT broadcast_id
FROM broadcasts
WHERE tenant_id = :tenant_id AND customer_id = :customer_id AND status IN ('searching', 'partially_filled')
"""

# --- What a commit writes --------------------------------------------------------------------------------------------

INSERT_BROADCAST = """
INSERT INTO broadcasts (
    tenant_id, broadcast_id, customer_id, status, created_at_ms, expires_at_ms, ended_at_ms, next_deadline_at_ms,
    epoch, owner, seq, state
)
VALUES (
    :tenant_id, :broadcast_id, :customer_id, :status, :created_at_ms, :expires_at_ms, :ended_at_ms,
    :next_deadline_at_ms, :epoch, :owner, :seq, :state
)
"""

# The fence was compared in the same transaction; what never changes is left out.
UPDATE_BROADCAST = """
UPDATE broadcasts
SET status = :status, expires_at_ms = :expires_at_ms, ended_at_ms = :ended_at_ms,
    next_deadline_at_ms = :next_deadline_at_ms, seq = :seq, state = :state
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id
"""

INSERT_EVENT = """
INSERT INTO events (tenant_id, broadcast_id, seq, name, body, write_id)
VALUES (:tenant_id, :broadcast_id, :seq, :name, :body, :write_id)
"""

# An offer that is new, or that its transporter has declined.
PUT_OFFER = """
INSERT INTO offers (
    tenant_id, broadcast_id, transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined,
    ended_at_ms
)
VALUES (
    :tenant_id, :broadcast_id, :transporter_id, :wave, :vehicle_id, :vehicle_type, :distance_m, :offered_at_ms,
    :declined, :ended_at_ms
)
ON CONFLICT DO UPDATE SET
    wave = excluded.wave, vehicle_id = excluded.vehicle_id, vehicle_type = excluded.vehicle_type,
    distance_m = excluded.distance_m, offered_at_ms = excluded.offered_at_ms, declined = excluded.declined
"""

# The broadcast has ended, and with it all its offers.
END_OFFERS = """
UPDATE offers
SET ended_at_ms = :ended_at_ms
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id
"""

INSERT_ASSIGNMENT = """
INSERT INTO assignments (
    tenant_id, broadcast_id, request_id, assignment_id, trip_id, transporter_id, vehicle_id, driver_id, vehicle_type,
    trip_status, assigned_at_ms, updated_at_ms
)
VALUES (
    :tenant_id, :broadcast_id, :request_id, :assignment_id, :trip_id, :transporter_id, :vehicle_id, :driver_id,
    :vehicle_type, :trip_status, :assigned_at_ms, :updated_at_ms
)
"""

UPDATE_TRIP = """
UPDATE assignments
SET trip_status = :trip_status, updated_at_ms = :updated_at_ms
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id AND request_id = :request_id
"""

LOG_REPLY = """
INSERT INTO request_log (tenant_id, role, user_id, request_id, fingerprint, reply, at_ms, write_id)
VALUES (:tenant_id, :role, :user_id, :request_id, :fingerprint, :reply, :at_ms, :write_id)
"""

# --- Ownership -------------------------------------------------------------------------------------------------------

# AUTOINCREMENT never gives a number twice, not even after rows were deleted.
NEXT_INCARNATION = """
INSERT INTO incarnations DEFAULT VALUES
RETURNING incarnation
"""

MARK_LOST = """
INSERT INTO lost_nodes (incarnation)
VALUES (:incarnation)
ON CONFLICT DO NOTHING
"""

LOST = """
SELECT 1 FROM lost_nodes WHERE incarnation = :incarnation
"""

CLAIM = """
UPDATE broadcasts
SET epoch = epoch + 1, owner = :owner
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id AND epoch = :epoch
RETURNING epoch, state
"""

# What has a deadline is live.
ORPHANS = """
SELECT tenant_id, broadcast_id, epoch
FROM broadcasts
WHERE next_deadline_at_ms IS NOT NULL AND owner <> :owner
    AND (owner NOT IN (SELECT value FROM json_each(:alive)) OR next_deadline_at_ms < :overdue_before_ms)
ORDER BY next_deadline_at_ms, tenant_id, broadcast_id
"""

OWNED = """
SELECT tenant_id, broadcast_id, epoch
FROM broadcasts
WHERE next_deadline_at_ms IS NOT NULL AND owner = :owner
"""

OWNER = """
SELECT epoch, owner
FROM broadcasts
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id
"""

# --- Reads of broadcasts ---------------------------------------------------------------------------------------------

BROADCAST = """
SELECT epoch, state
FROM broadcasts
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id
"""

# In the order in which they were made.
OFFERS_OF_BROADCAST = """
SELECT transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined
FROM offers
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id
ORDER BY wave, offered_at_ms, distance_m, transporter_id
"""

EVENTS_OF_BROADCAST = """
SELECT name, body
FROM events
WHERE tenant_id = :tenant_id AND broadcast_id = :broadcast_id
ORDER BY seq
"""

NEWEST_BROADCASTS = """
SELECT epoch, state
FROM broadcasts
WHERE tenant_id = :tenant_id
ORDER BY created_at_ms DESC, broadcast_id DESC
LIMIT :limit
"""

NEWEST_BROADCASTS_OF_CUSTOMER = """
SELECT epoch, state
FROM broadcasts
WHERE tenant_id = :tenant_id AND customer_id = :customer_id
ORDER BY created_at_ms DESC, broadcast_id DESC
LIMIT :limit
"""

# The live ones by one index, the lately ended ones by another, however many the tenant ever had; then by id. `after` is
# "" for none.
BOARD = """
WITH shown AS (
    SELECT broadcast_id, epoch, state FROM broadcasts INDEXED BY broadcasts_live_customer
    WHERE tenant_id = :tenant_id AND status IN ('searching', 'partially_filled')
    UNION ALL
    SELECT broadcast_id, epoch, state FROM broadcasts INDEXED BY broadcasts_ended
    WHERE tenant_id = :tenant_id AND ended_at_ms > :ended_after_ms
)
SELECT epoch, state
FROM shown
WHERE broadcast_id > :after
ORDER BY broadcast_id
LIMIT :limit
"""

# Two ranges of one index, however many offers the transporter ever had. Left to itself SQLite takes the primary key
# here and in the next query, and goes through all that the tenant has.
OFFERS_OF_TRANSPORTER = """
WITH shown AS (
    SELECT * FROM offers INDEXED BY offers_of_transporter
    WHERE tenant_id = :tenant_id AND transporter_id = :transporter_id AND ended_at_ms IS NULL
    UNION ALL
    SELECT * FROM offers INDEXED BY offers_of_transporter
    WHERE tenant_id = :tenant_id AND transporter_id = :transporter_id AND ended_at_ms > :ended_after_ms
)
SELECT
    broadcasts.state, transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined
FROM shown
JOIN broadcasts USING (tenant_id, broadcast_id)
ORDER BY offered_at_ms, broadcast_id
"""

ACTIVE_TRIPS_OF_TRANSPORTER = """
SELECT broadcasts.state, trip_id
FROM assignments INDEXED BY assignments_active_transporter
JOIN broadcasts USING (tenant_id, broadcast_id)
WHERE tenant_id = :tenant_id AND transporter_id = :user_id AND trip_status NOT IN ('delivered', 'cancelled')
ORDER BY assigned_at_ms, trip_id
"""

ACTIVE_TRIPS_OF_DRIVER = """
SELECT broadcasts.state, trip_id
FROM assignments
JOIN broadcasts USING (tenant_id, broadcast_id)
WHERE tenant_id = :tenant_id AND driver_id = :user_id AND trip_status NOT IN ('delivered', 'cancelled')
ORDER BY assigned_at_ms, trip_id
"""

ENGAGED_VEHICLES = """
SELECT tenant_id, vehicle_id
FROM assignments
WHERE trip_status NOT IN ('delivered', 'cancelled')
ORDER BY tenant_id, vehicle_id
"""

# --- Fleet, tenants, request log -------------------------------------------------------------------------------------

PUT_TRANSPORTER = """
INSERT INTO transporters (tenant_id, transporter_id, name)
VALUES (:tenant_id, :transporter_id, :name)
ON CONFLICT DO UPDATE SET name = excluded.name
"""

PUT_VEHICLE = """
INSERT INTO vehicles (tenant_id, vehicle_id, transporter_id, vehicle_type)
VALUES (:tenant_id, :vehicle_id, :transporter_id, :vehicle_type)
ON CONFLICT DO UPDATE SET transporter_id = excluded.transporter_id, vehicle_type = excluded.vehicle_type
"""

PUT_DRIVER = """
INSERT INTO drivers (tenant_id, driver_id, transporter_id, name)
VALUES (:tenant_id, :driver_id, :transporter_id, :name)
ON CONFLICT DO UPDATE SET transporter_id = excluded.transporter_id, name = excluded.name
"""

VEHICLE = """
SELECT vehicle_id, transporter_id, vehicle_type
FROM vehicles
WHERE tenant_id = :tenant_id AND vehicle_id = :vehicle_id
"""

DRIVER = """
SELECT driver_id, transporter_id, name
FROM drivers
WHERE tenant_id = :tenant_id AND driver_id = :driver_id
"""

# The vehicles with their types, then the drivers with their names, each by id. Without statistics the planner takes the
# whole tenant for as little as one transporter.
FLEET = """
SELECT 0 AS is_driver, vehicle_id AS id, vehicle_type
FROM vehicles INDEXED BY vehicles_of_transporter
WHERE tenant_id = :tenant_id AND transporter_id = :transporter_id
UNION ALL
SELECT 1, driver_id, name
FROM drivers INDEXED BY drivers_of_transporter
WHERE tenant_id = :tenant_id AND transporter_id = :transporter_id
ORDER BY is_driver, id
"""

CREATE_TENANT = """
INSERT INTO tenants (tenant_id, settings, mode)
VALUES (:tenant_id, :settings, :mode)
ON CONFLICT DO NOTHING
"""

TENANT = """
SELECT settings, paused, control_version, announcements
FROM tenants
WHERE tenant_id = :tenant_id
"""

# Some of them, so that commits get their turn in between.
PURGE_REQUESTS = """
DELETE FROM request_log
WHERE (tenant_id, role, user_id, request_id) IN (
    SELECT tenant_id, role, user_id, request_id
    FROM request_log
    WHERE at_ms < :before_ms
    LIMIT :limit
)
"""

# --- What operators do -----------------------------------------------------------------------------------------------

# :tenant_ids is a JSON array.
CONTROL_VERSIONS = """
SELECT tenant_id, control_version
FROM tenants
WHERE tenant_id IN (SELECT value FROM json_each(:tenant_ids))
"""

# The version was compared in the same transaction.
PUT_CONTROL = """
UPDATE tenants
SET settings = :settings, paused = :paused, mode = :mode, control_version = :control_version,
    announcements = :announcements
WHERE tenant_id = :tenant_id
"""

# That a number is positive is what the index wants to hear.
RECORD_CONTROL = """
INSERT INTO control_log (
    number, tenant_id, role, user_id, request_id, fingerprint, command, data, at_ms, version, changes, outcome
)
VALUES (
    1 + coalesce((SELECT max(number) FROM control_log WHERE tenant_id = :tenant_id AND number > 0), 0),
    :tenant_id, :role, :user_id, :request_id, :fingerprint, :command, :data, :at_ms, :version, :changes, :outcome
)
"""

# What was recorded under a key.
CONTROL_RECORD = """
SELECT number, tenant_id, role, user_id, request_id, fingerprint, command, data, at_ms, version, changes, outcome
FROM control_log
WHERE tenant_id = :tenant_id AND role = :role AND user_id = :user_id AND request_id = :request_id
"""

FINISH_CONTROL = """
UPDATE control_log
SET outcome = :outcome
WHERE tenant_id = :tenant_id AND number = :number AND outcome IS NULL
"""

# :commands is a JSON array, or NULL for all.
CONTROL_LOG = """
SELECT number, tenant_id, role, user_id, request_id, fingerprint, command, data, at_ms, version, changes, outcome
FROM control_log
WHERE tenant_id = :tenant_id AND number < :before
    AND (:commands IS NULL OR command IN (SELECT value FROM json_each(:commands)))
ORDER BY number DESC
LIMIT :limit
"""
