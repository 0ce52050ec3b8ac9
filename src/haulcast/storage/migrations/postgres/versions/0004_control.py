"""What is in force for a tenant at which version, and the record of operators' commands.

A tenant of before is not paused and at version 1, and its settings say of themselves in which version they are written.
A tenant's records are counted from 1, without regard to those of others: nobody learns from a number how busy they are.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    # `mode` repeats what the settings say, for queries; `control_version` is raised by each command.
    """
    ALTER TABLE tenants
        ADD COLUMN paused BOOLEAN NOT NULL DEFAULT false,
        ADD COLUMN announcements TEXT NOT NULL DEFAULT '[]', -- JSON
        ADD COLUMN mode TEXT NOT NULL DEFAULT 'progressive',
        ADD COLUMN control_version BIGINT NOT NULL DEFAULT 1
    """,
    # Kept for ever. There may be no row in `tenants`: that of an admin need not exist.
    """
    CREATE TABLE control_log (
        tenant_id TEXT COLLATE "C" NOT NULL,
        number BIGINT NOT NULL, -- from 1, without gaps
        role TEXT COLLATE "C" NOT NULL,
        user_id TEXT COLLATE "C" NOT NULL,
        request_id TEXT COLLATE "C" NOT NULL,
        fingerprint TEXT COLLATE "C" NOT NULL, -- of the command, since a key must not be reused for another
        command TEXT COLLATE "C" NOT NULL,
        data TEXT NOT NULL, -- JSON: what was asked
        at_ms BIGINT NOT NULL,
        version BIGINT, -- the control_version that it led to; NULL if it was no command to a tenant
        changes TEXT NOT NULL, -- JSON: by name, what it was and what it is
        outcome TEXT, -- JSON; NULL until the nodes have answered
        PRIMARY KEY (tenant_id, number)
    )
    """,
    # A command is recorded once under its key. The condition is always true, see 0001.
    """
    CREATE UNIQUE INDEX control_log_request ON control_log (tenant_id, role, user_id, request_id)
    WHERE request_id IS NOT NULL
    """,
)

# Of what was recorded a tenant's request may change the outcome alone, and delete nothing.
RIGHTS = (
    "GRANT SELECT (tenant_id, control_version) ON tenants TO haulcast_node",
    "GRANT UPDATE (settings, paused, mode, control_version, announcements) ON tenants TO haulcast_tenant",
    "GRANT SELECT, INSERT, UPDATE (outcome) ON control_log TO haulcast_tenant",
    "ALTER TABLE control_log ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE control_log FORCE ROW LEVEL SECURITY",
    "CREATE POLICY every_tenant ON control_log TO haulcast_node USING (true)",
    "CREATE POLICY one_tenant ON control_log TO haulcast_tenant"
    " USING (tenant_id = current_setting('haulcast.tenant', true))",
)


def upgrade() -> None:
    for statement in (*STATEMENTS, *RIGHTS):
        op.execute(statement)
