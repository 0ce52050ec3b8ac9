"""The statement that writes a batch, whatever is in it.

What it rests on, and why it is as it is:

1. All parts of a statement see the database as it was when the statement began (its snapshot), and not what the other
   parts write. Only a row that has been locked is as it is now. So the fence is compared with the locked row; what else
   a write has to know is read from the snapshot and may be out of date, which the unique indexes find out.
2. Rows are locked in the order of their keys, whatever the order of the batch, so that batches of several nodes wait
   for one another without a deadlock. NO KEY UPDATE, since nobody changes a key.
3. An assignment or a broadcast that a unique index refuses is left out by ON CONFLICT DO NOTHING; it spoils no other
   write. The update of its broadcast depends on the row that was really inserted, and all that goes with a write
   depends on that update: a write lands as a whole or not at all.
4. What a write inserts beyond that has a key under its locked broadcast and cannot collide; but a logged reply may,
   with one that another node logs in this moment, and so may the assignment of a broadcast that is being created. These
   are inserted without ON CONFLICT: the statement fails as a whole and is tried again in parts.
5. Whatever is looked up in a table is looked up by LATERAL ... LIMIT 1 or in an UPDATE, which are index look-ups
   whatever the planner believes (`connections.py` leaves it no other join); what is looked up in another part of the
   statement is asked for by IN (...) IS TRUE, which is a hash table and never a join of 256 rows with 256.

The answer is a row for each write: whether it landed, and if not, everything that can have kept it from landing.
"""

from .log_query import ANSWERED, LOGGED
from .rows import ChangeRow, EventRow, OfferRow, Step, TripRow, WriteRow, unnest

_EVENTS_FROM = 1 + len(WriteRow._fields) + len(ChangeRow._fields)
_OFFERS_FROM = _EVENTS_FROM + len(EventRow._fields)
_TRIPS_FROM = _OFFERS_FROM + len(OfferRow._fields)

COMMIT = f"""
WITH input AS MATERIALIZED (
    SELECT * FROM {unnest(1, WriteRow, ChangeRow)}
    ORDER BY tenant_id, broadcast_id, n
),

-- The writes, in the order of their broadcasts, each with its locked broadcast and with what else it depends on.
known AS MATERIALIZED (
    SELECT
        input.*,
        fence.holds,
        locked.live AS was_live,
        logged.write_id AS logged_write_id,
        logged.fingerprint AS logged_fingerprint,
        logged.reply AS logged_reply,
        moved_on.write_id AS writer,
        other.broadcast_id AS other_broadcast_id,
        vehicle.transporter_id AS vehicle_owner,
        vehicle.vehicle_type AS type_of_vehicle,
        vehicle.busy AS vehicle_busy,
        driver.transporter_id AS employer,
        driver.busy AS driver_busy
    FROM input
    LEFT JOIN LATERAL (
        SELECT epoch, owner, seq, ended_at_ms IS NULL AS live
        FROM broadcasts
        WHERE input.step <> {Step.NONE}
            AND broadcasts.tenant_id = input.tenant_id AND broadcasts.broadcast_id = input.broadcast_id
        FOR NO KEY UPDATE
    ) AS locked ON true
    CROSS JOIN LATERAL (
        SELECT
            CASE input.step
                WHEN {Step.NONE} THEN true
                WHEN {Step.CREATION} THEN locked.epoch IS NULL
                WHEN {Step.CHECKPOINT} THEN
                    coalesce((locked.epoch, locked.owner, locked.seq) = (input.epoch, input.owner, input.seq), false)
                -- What does not exist has no owner, and is refused by whoever is asked.
                WHEN {Step.REFUSAL} THEN
                    coalesce((locked.epoch, locked.owner) = (input.epoch, input.owner), input.seq = 0)
            END AS holds
    ) AS fence
    {LOGGED}
    LEFT JOIN LATERAL (
        SELECT write_id
        FROM events
        WHERE NOT fence.holds
            AND events.tenant_id = input.tenant_id AND events.broadcast_id = input.broadcast_id
            AND events.seq = input.seq + 1
        LIMIT 1
    ) AS moved_on ON true
    LEFT JOIN LATERAL (
        SELECT broadcast_id
        FROM broadcasts
        WHERE input.step = {Step.CREATION} AND input.ended_at_ms IS NULL
            AND broadcasts.tenant_id = input.tenant_id AND broadcasts.customer_id = input.customer_id
            AND broadcasts.ended_at_ms IS NULL
        LIMIT 1
    ) AS other ON true
    LEFT JOIN LATERAL (
        SELECT
            transporter_id,
            vehicle_type,
            (
                SELECT true
                FROM assignments
                WHERE assignments.tenant_id = input.tenant_id AND assignments.vehicle_id = input.vehicle_id AND active
            ) IS TRUE AS busy
        FROM vehicles
        WHERE input.trip_id IS NOT NULL
            AND vehicles.tenant_id = input.tenant_id AND vehicles.vehicle_id = input.vehicle_id
        LIMIT 1
    ) AS vehicle ON true
    LEFT JOIN LATERAL (
        SELECT
            transporter_id,
            (
                SELECT true
                FROM assignments
                WHERE assignments.tenant_id = input.tenant_id AND assignments.driver_id = input.driver_id AND active
            ) IS TRUE AS busy
        FROM drivers
        WHERE input.trip_id IS NOT NULL
            AND drivers.tenant_id = input.tenant_id AND drivers.driver_id = input.driver_id
        LIMIT 1
    ) AS driver ON true
),

-- Those that nothing known is in the way of. Sorted, so that all are locked before the first is changed: a refusal that
-- came to its row after the checkpoint beside it would find it changed by its own statement, and so not find it.
able AS MATERIALIZED (
    SELECT *
    FROM known
    WHERE holds
        AND logged_write_id IS NULL
        AND other_broadcast_id IS NULL
        AND (
            trip_id IS NULL
            OR (
                (vehicle_owner, type_of_vehicle, employer) = (transporter_id, vehicle_type, transporter_id)
                AND NOT vehicle_busy AND NOT driver_busy
            )
        ) IS TRUE
    ORDER BY n
),

assigned AS (
    INSERT INTO assignments (
        tenant_id, broadcast_id, request_id, assignment_id, trip_id, transporter_id, vehicle_id, driver_id,
        vehicle_type, trip_status, active, assigned_at_ms, updated_at_ms
    )
    SELECT
        tenant_id, broadcast_id, truck_request_id, assignment_id, trip_id, transporter_id, vehicle_id, driver_id,
        vehicle_type, trip_status, active, assigned_at_ms, updated_at_ms
    FROM able
    WHERE step = {Step.CHECKPOINT} AND trip_id IS NOT NULL
    ORDER BY tenant_id, vehicle_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, broadcast_id
),

-- What never changes is left out.
moved AS (
    UPDATE broadcasts
    SET status = able.status, expires_at_ms = able.expires_at_ms, ended_at_ms = able.ended_at_ms,
        next_deadline_at_ms = able.next_deadline_at_ms, seq = able.new_seq, state = able.state
    FROM able
    WHERE able.step = {Step.CHECKPOINT}
        AND (
            able.trip_id IS NULL
            OR (able.tenant_id, able.broadcast_id) IN (SELECT tenant_id, broadcast_id FROM assigned)
        )
        AND broadcasts.tenant_id = able.tenant_id AND broadcasts.broadcast_id = able.broadcast_id
    RETURNING broadcasts.tenant_id, broadcasts.broadcast_id
),

created AS (
    INSERT INTO broadcasts (
        tenant_id, broadcast_id, customer_id, status, created_at_ms, expires_at_ms, ended_at_ms, next_deadline_at_ms,
        epoch, owner, seq, state
    )
    SELECT
        tenant_id, broadcast_id, customer_id, status, created_at_ms, expires_at_ms, ended_at_ms, next_deadline_at_ms,
        epoch, owner, new_seq, state
    FROM able
    WHERE step = {Step.CREATION}
    ORDER BY tenant_id, customer_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, broadcast_id
),

landed AS MATERIALIZED (
    SELECT *
    FROM able
    WHERE CASE step
        WHEN {Step.CHECKPOINT} THEN (tenant_id, broadcast_id) IN (SELECT tenant_id, broadcast_id FROM moved)
        WHEN {Step.CREATION} THEN (tenant_id, broadcast_id) IN (SELECT tenant_id, broadcast_id FROM created)
        ELSE true
    END
),

assigned_at_once AS (
    INSERT INTO assignments (
        tenant_id, broadcast_id, request_id, assignment_id, trip_id, transporter_id, vehicle_id, driver_id,
        vehicle_type, trip_status, active, assigned_at_ms, updated_at_ms
    )
    SELECT
        tenant_id, broadcast_id, truck_request_id, assignment_id, trip_id, transporter_id, vehicle_id, driver_id,
        vehicle_type, trip_status, active, assigned_at_ms, updated_at_ms
    FROM landed
    WHERE step = {Step.CREATION} AND trip_id IS NOT NULL
),

happened AS (
    INSERT INTO events (tenant_id, broadcast_id, seq, name, body, write_id)
    SELECT tenant_id, broadcast_id, seq, name, body, write_id
    FROM {unnest(_EVENTS_FROM, EventRow)}
    WHERE (n IN (SELECT n FROM landed)) IS TRUE
),

-- New offers, and those that their transporter has declined.
offered AS (
    INSERT INTO offers (
        tenant_id, broadcast_id, transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined,
        ended_at_ms
    )
    SELECT
        tenant_id, broadcast_id, transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined,
        ended_at_ms
    FROM {unnest(_OFFERS_FROM, OfferRow)}
    WHERE (n IN (SELECT n FROM landed)) IS TRUE
    ON CONFLICT (tenant_id, broadcast_id, transporter_id) DO UPDATE SET
        wave = excluded.wave, vehicle_id = excluded.vehicle_id, vehicle_type = excluded.vehicle_type,
        distance_m = excluded.distance_m, offered_at_ms = excluded.offered_at_ms, declined = excluded.declined,
        ended_at_ms = excluded.ended_at_ms
),

-- A broadcast has ended, and with it all its offers but those just written: no row may be written twice.
closed AS (
    UPDATE offers
    SET ended_at_ms = landed.ended_at_ms
    FROM landed
    WHERE landed.was_live AND landed.ended_at_ms IS NOT NULL
        AND offers.tenant_id = landed.tenant_id AND offers.broadcast_id = landed.broadcast_id
        AND ((landed.n, offers.transporter_id) IN (
            SELECT n, transporter_id FROM {unnest(_OFFERS_FROM, OfferRow)}
        )) IS NOT TRUE
),

progressed AS (
    UPDATE assignments
    SET trip_status = given.trip_status, active = given.active, updated_at_ms = given.updated_at_ms
    FROM {unnest(_TRIPS_FROM, TripRow)}
    WHERE (given.n IN (SELECT n FROM landed)) IS TRUE
        AND assignments.tenant_id = given.tenant_id AND assignments.broadcast_id = given.broadcast_id
        AND assignments.request_id = given.request_id
),

{ANSWERED}

SELECT
    n,
    (n IN (SELECT n FROM landed)) IS TRUE AS landed,
    holds, logged_write_id, logged_fingerprint, logged_reply, writer, other_broadcast_id,
    vehicle_owner, type_of_vehicle, vehicle_busy, employer, driver_busy
FROM known
"""
