"""What ended lately, found without a look at all that ever ended. What is live is in no part of the index, so that only
the end of a broadcast writes to it. Commits wait while it is built."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX broadcasts_ended ON broadcasts (tenant_id, ended_at_ms)
        WHERE ended_at_ms IS NOT NULL
        """
    )
