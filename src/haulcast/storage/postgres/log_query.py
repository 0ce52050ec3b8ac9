"""The statement that writes a batch of logged replies alone, and what it has in common with the commit's.

In a race for one truck nearly every write is the refusal of one who came too late. It concerns the ownership of its
broadcast and the log, and nothing else that `COMMIT` asks about. What that rests on holds here too (`commit_query.py`),
and besides:

1. A broadcast is locked once, however many of its refusals there are, and before anything is logged; in the order that
   `COMMIT` locks in.
2. The fence is compared with the locked row. What was not found to be locked does not exist.
3. A reply that another node logs in this moment makes the statement fail as a whole, to be tried again in parts.
"""

from .rows import Step, WriteRow, unnest

LOGGED = """
    LEFT JOIN LATERAL (
        SELECT write_id, fingerprint, reply
        FROM request_log
        WHERE input.request_id IS NOT NULL
            AND request_log.tenant_id = input.request_tenant_id AND request_log.role = input.role
            AND request_log.user_id = input.user_id AND request_log.request_id = input.request_id
        LIMIT 1
    ) AS logged ON true
"""
"""Joins `input` with the reply that was logged before under the same key."""

ANSWERED = """
answered AS (
    INSERT INTO request_log (tenant_id, role, user_id, request_id, fingerprint, reply, at_ms, write_id)
    SELECT request_tenant_id, role, user_id, request_id, fingerprint, reply, at_ms, write_id
    FROM landed
    WHERE request_id IS NOT NULL
    -- Ids are the clients' own: two nodes that wait for each other's keys would each lose a second to the deadlock.
    ORDER BY request_tenant_id, role, user_id, request_id
)
"""
"""The part that logs the replies of what has `landed`."""

LOG = f"""
WITH input AS MATERIALIZED (
    SELECT * FROM {unnest(1, WriteRow)}
),

locked AS MATERIALIZED (
    SELECT asked.tenant_id, asked.broadcast_id, owned.epoch, owned.owner
    FROM (
        SELECT DISTINCT tenant_id, broadcast_id
        FROM input
        WHERE step = {Step.REFUSAL}
        ORDER BY tenant_id, broadcast_id
    ) AS asked
    CROSS JOIN LATERAL (
        SELECT epoch, owner
        FROM broadcasts
        WHERE broadcasts.tenant_id = asked.tenant_id AND broadcasts.broadcast_id = asked.broadcast_id
        FOR NO KEY UPDATE
    ) AS owned
),

known AS MATERIALIZED (
    SELECT
        input.*,
        CASE step
            WHEN {Step.NONE} THEN true
            -- What does not exist has no owner, and is refused by whoever is asked.
            WHEN {Step.REFUSAL} THEN
                (tenant_id, broadcast_id, epoch, owner) IN (SELECT * FROM locked)
                OR seq = 0 AND (tenant_id, broadcast_id) NOT IN (SELECT tenant_id, broadcast_id FROM locked)
        END AS holds,
        logged.write_id AS logged_write_id,
        logged.fingerprint AS logged_fingerprint,
        logged.reply AS logged_reply
    FROM input
    {LOGGED}
),

landed AS MATERIALIZED (
    SELECT * FROM known WHERE holds AND logged_write_id IS NULL
),

{ANSWERED}

SELECT
    n,
    (n IN (SELECT n FROM landed)) IS TRUE AS landed,
    holds, logged_write_id, logged_fingerprint, logged_reply
FROM known
"""
