"""The tables of the accept paths, and all that they ask of them. Times are milliseconds since 1970."""

TABLES = """
CREATE SCHEMA accepts;
SET search_path = accepts;

CREATE TABLE vehicles (
    vehicle_id TEXT COLLATE "C" PRIMARY KEY,
    transporter_id TEXT COLLATE "C" NOT NULL,
    vehicle_type TEXT COLLATE "C" NOT NULL
);

CREATE TABLE drivers (
    driver_id TEXT COLLATE "C" PRIMARY KEY,
    transporter_id TEXT COLLATE "C" NOT NULL
);

CREATE TABLE broadcasts (
    broadcast_id TEXT COLLATE "C" PRIMARY KEY,
    status TEXT NOT NULL, -- active, fully_filled
    open_trucks INTEGER NOT NULL,
    expires_at_ms BIGINT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE truck_requests (
    request_id TEXT COLLATE "C" PRIMARY KEY,
    broadcast_id TEXT COLLATE "C" NOT NULL,
    vehicle_type TEXT COLLATE "C" NOT NULL,
    status TEXT NOT NULL, -- searching, assigned
    transporter_id TEXT COLLATE "C"
) WITH (fillfactor = 50);

CREATE TABLE assignments (
    assignment_id TEXT COLLATE "C" PRIMARY KEY,
    broadcast_id TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    transporter_id TEXT COLLATE "C" NOT NULL,
    vehicle_id TEXT COLLATE "C" NOT NULL,
    driver_id TEXT COLLATE "C" NOT NULL,
    assigned_at_ms BIGINT NOT NULL
);

CREATE TABLE trips (
    trip_id TEXT COLLATE "C" PRIMARY KEY,
    assignment_id TEXT COLLATE "C" NOT NULL,
    vehicle_id TEXT COLLATE "C" NOT NULL,
    driver_id TEXT COLLATE "C" NOT NULL,
    status TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

CREATE UNIQUE INDEX trips_active_vehicle ON trips (vehicle_id) WHERE active;
CREATE UNIQUE INDEX trips_active_driver ON trips (driver_id) WHERE active;
"""

# --- The transaction, statement by statement ---

BROADCAST = "SELECT status, expires_at_ms FROM broadcasts WHERE broadcast_id = $1"

TRUCK_REQUEST = "SELECT status, vehicle_type FROM truck_requests WHERE request_id = $1"

VEHICLE = "SELECT transporter_id, vehicle_type FROM vehicles WHERE vehicle_id = $1"

DRIVER = "SELECT transporter_id FROM drivers WHERE driver_id = $1"

TRIP_OF_VEHICLE = "SELECT trip_id FROM trips WHERE vehicle_id = $1 AND active"

TRIP_OF_DRIVER = "SELECT trip_id FROM trips WHERE driver_id = $1 AND active"

TAKE_IF_SEARCHING = """
UPDATE truck_requests SET status = 'assigned', transporter_id = $2
WHERE request_id = $1 AND status = 'searching'
RETURNING request_id
"""

ASSIGN = """
INSERT INTO assignments (
    assignment_id, broadcast_id, request_id, transporter_id, vehicle_id, driver_id, assigned_at_ms
)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

BEGIN_TRIP = """
INSERT INTO trips (trip_id, assignment_id, vehicle_id, driver_id, status, active, updated_at_ms)
VALUES ($1, $2, $3, $4, 'assigned', true, $5)
"""

COUNT_DOWN = """
UPDATE broadcasts
SET open_trucks = open_trucks - 1, status = CASE open_trucks WHEN 1 THEN 'fully_filled' ELSE status END
WHERE broadcast_id = $1
RETURNING open_trucks
"""

# --- All of it in one ---

# Who comes second waits for the row of the request, and then finds its condition no longer true.
TAKE_IF_ALL_HOLDS = """
WITH taken AS (
    UPDATE truck_requests SET status = 'assigned', transporter_id = $2
    FROM broadcasts, vehicles, drivers
    WHERE truck_requests.request_id = $1 AND truck_requests.status = 'searching'
        AND broadcasts.broadcast_id = truck_requests.broadcast_id AND broadcasts.expires_at_ms > $7
        AND vehicles.vehicle_id = $3 AND vehicles.transporter_id = $2
        AND vehicles.vehicle_type = truck_requests.vehicle_type
        AND drivers.driver_id = $4 AND drivers.transporter_id = $2
        AND NOT EXISTS (SELECT FROM trips WHERE trips.vehicle_id = $3 AND active)
        AND NOT EXISTS (SELECT FROM trips WHERE trips.driver_id = $4 AND active)
    RETURNING truck_requests.broadcast_id, truck_requests.request_id
),

assigned AS (
    INSERT INTO assignments (
        assignment_id, broadcast_id, request_id, transporter_id, vehicle_id, driver_id, assigned_at_ms
    )
    SELECT $5, broadcast_id, request_id, $2, $3, $4, $7 FROM taken
),

begun AS (
    INSERT INTO trips (trip_id, assignment_id, vehicle_id, driver_id, status, active, updated_at_ms)
    SELECT $6, $5, $3, $4, 'assigned', true, $7 FROM taken
)

UPDATE broadcasts
SET open_trucks = open_trucks - 1, status = CASE open_trucks WHEN 1 THEN 'fully_filled' ELSE status END
FROM taken
WHERE broadcasts.broadcast_id = taken.broadcast_id
RETURNING open_trucks
"""

# --- Before and after a measurement ---

PUT_VEHICLES = "INSERT INTO accepts.vehicles SELECT * FROM unnest($1::text[], $2::text[], $3::text[])"

PUT_DRIVERS = "INSERT INTO accepts.drivers SELECT * FROM unnest($1::text[], $2::text[])"

# Others' trips under way, $1 for each vehicle. Under SERIALIZABLE a search that finds nothing locks a page of the
# index, and while that is a single page any two transactions conflict.
PUT_OTHERS_TRIPS = """
INSERT INTO accepts.trips (trip_id, assignment_id, vehicle_id, driver_id, status, active, updated_at_ms)
SELECT 'other-' || id || '-t', 'other-' || id || '-a', id, driver_id || '-' || number, 'en_route', true, 0
FROM (
    SELECT vehicle_id || '-' || number AS id, vehicle_id || '-driver' AS driver_id, number
    FROM accepts.vehicles, generate_series(1, $1) AS number
) AS others
"""

# By identifier and wanted type; each wants one truck and expires at $3.
PUT_BROADCASTS = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[]) AS given (broadcast_id, vehicle_type)
),

broadcast AS (
    INSERT INTO accepts.broadcasts (broadcast_id, status, open_trucks, expires_at_ms)
    SELECT broadcast_id, 'active', 1, $3 FROM given
)

INSERT INTO accepts.truck_requests (request_id, broadcast_id, vehicle_type, status)
SELECT broadcast_id || '-1', broadcast_id, vehicle_type, 'searching' FROM given
"""

END_TRIPS = "UPDATE accepts.trips SET status = 'cancelled', active = false WHERE trip_id = ANY($1::text[])"
