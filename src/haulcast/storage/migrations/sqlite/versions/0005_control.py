"""What is in force for a tenant at which version, and the record of operators' commands.

A tenant of before is not paused and at version 1, and its settings say of themselves in which version they are written.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    "ALTER TABLE tenants ADD COLUMN paused INTEGER NOT NULL DEFAULT 0",  # 0 or 1
    # What the settings say, repeated for queries.
    "ALTER TABLE tenants ADD COLUMN mode TEXT NOT NULL DEFAULT 'progressive'",
    # Raised by each command.
    "ALTER TABLE tenants ADD COLUMN control_version INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE tenants ADD COLUMN announcements TEXT NOT NULL DEFAULT '[]'",  # JSON
    # Kept for ever. There may be no row in `tenants`: that of an admin need not exist.
    """
    CREATE TABLE control_log (
        tenant_id TEXT NOT NULL,
        number INTEGER NOT NULL,  -- from 1, without gaps
        role TEXT NOT NULL,
        user_id TEXT NOT NULL,
        request_id TEXT NOT NULL,
        fingerprint TEXT NOT NULL,  -- of the command, since a key must not be reused for another
        command TEXT NOT NULL,
        data TEXT NOT NULL,  -- JSON: what was asked
        at_ms INTEGER NOT NULL,
        version INTEGER,  -- the control_version that it led to; NULL if it was no command to a tenant
        changes TEXT NOT NULL,  -- JSON: by name, what it was and what it is
        outcome TEXT,  -- JSON; NULL until the nodes have answered
        PRIMARY KEY (tenant_id, number)
    ) STRICT, WITHOUT ROWID
    """,
    # A command is recorded once under its key.
    "CREATE UNIQUE INDEX control_log_request ON control_log (tenant_id, role, user_id, request_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
