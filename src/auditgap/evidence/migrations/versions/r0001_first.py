"""Statements, checkpoints and blobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "statement",
        sa.Column("leaf", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(71), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(71), nullable=False),
        sa.Column("step", sa.Text),
        sa.Column("instrument", sa.Text),
        sa.Column("spec", sa.String(71)),
        sa.Column("created_at", sa.String(20)),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
    )
    op.create_index("statement_kind", "statement", ["kind"])
    op.create_index("statement_spec", "statement", ["spec"])
    op.create_table(
        "checkpoint",
        sa.Column("size", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_table("blob", sa.Column("digest", sa.String(71), primary_key=True), sa.Column("size", sa.Integer, nullable=False))


def downgrade() -> None:
    raise NotImplementedError("evidence is never migrated backwards: restore the copy made before the upgrade")
