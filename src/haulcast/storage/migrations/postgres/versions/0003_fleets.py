"""A transporter's vehicles and drivers, found without a look at all of the tenant. Fleets cannot be put while it is
built."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE INDEX vehicles_of_transporter ON vehicles (tenant_id, transporter_id)")
    op.execute("CREATE INDEX drivers_of_transporter ON drivers (tenant_id, transporter_id)")
