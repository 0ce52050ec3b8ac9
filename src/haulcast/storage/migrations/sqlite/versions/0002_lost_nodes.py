"""Which starts of a server the others have given up. One process has no others: the table is there for the contract."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE TABLE lost_nodes (incarnation INTEGER NOT NULL PRIMARY KEY) STRICT")
