"""The queue, the leases of instruments, uploaded files, tokens and remembered answers of the REST API.

Revision: 0002, after 0001. What is there stays as it is: one column is added to `experiment`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _moment(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.add_column("experiment", _moment("removed_at"))
    _queue()
    _service()


def _queue() -> None:
    op.create_table(
        "queue_entry",
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        _moment("not_before"),
        _moment("not_after"),
        sa.Column("wanted", sa.String(length=16), nullable=True),
        sa.Column("wanted_by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column("started_count", sa.Integer(), nullable=False),
        _moment("started_at"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("submitted_by", sa.Text(), nullable=True),
        _moment("created_at", nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], name="fk_queue_entry_experiment_id"),
        sa.PrimaryKeyConstraint("experiment_id", name="pk_queue_entry"),
        sa.UniqueConstraint("seq", name="uq_queue_entry_seq"),
    )
    falling = sa.text("priority DESC")
    op.create_index(
        "ix_queue_entry_claim", "queue_entry", ["instrument", "status", falling, "seq", "not_before"], unique=False
    )
    op.create_index("ix_queue_entry_page", "queue_entry", ["status", falling, "seq"], unique=False)
    op.create_index("ix_queue_entry_window", "queue_entry", ["status", "not_after"], unique=False)
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE SEQUENCE queue_entry_order AS bigint OWNED BY queue_entry.seq")
    op.create_table(
        "instrument_lease",
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("experiment_id", sa.String(length=32), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("renewal_count", sa.BigInteger(), nullable=False),
        sa.Column("length_s", sa.Float(precision=53), nullable=False),
        _moment("claimed_at"),
        _moment("expires_at"),
        _moment("asked_at"),
        sa.Column("asked_by", sa.Text(), nullable=True),
        sa.Column("locked_reason", sa.Text(), nullable=True),
        sa.Column("locked_by", sa.Text(), nullable=True),
        _moment("locked_at"),
        _moment("blanked_at"),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], name="fk_instrument_lease_experiment_id"),
        sa.PrimaryKeyConstraint("instrument", name="pk_instrument_lease"),
    )


def _service() -> None:
    op.create_table(
        "upload",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        _moment("created_at", nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_upload"),
    )
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=128), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        _moment("created_at", nullable=False),
        _moment("expires_at", nullable=False),
        _moment("revoked_at"),
        _moment("last_used_at"),
        sa.PrimaryKeyConstraint("id", name="pk_api_token"),
    )
    op.create_table(
        "idempotency",
        sa.Column("token_id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        _moment("created_at", nullable=False),
        sa.PrimaryKeyConstraint("token_id", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_idempotency_created_at", table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_table("api_token")
    op.drop_table("upload")
    op.drop_table("instrument_lease")
    op.drop_index("ix_queue_entry_window", table_name="queue_entry")
    op.drop_index("ix_queue_entry_page", table_name="queue_entry")
    op.drop_index("ix_queue_entry_claim", table_name="queue_entry")
    op.drop_table("queue_entry")
    op.drop_column("experiment", "removed_at")
