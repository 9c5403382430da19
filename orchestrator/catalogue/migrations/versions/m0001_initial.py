"""Experiments, events, decisions, acquisitions and assets.

Revision: 0001, after None
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = {
    "sqlite": """
        CREATE TRIGGER event_append_only_{action} BEFORE {action} ON event
        BEGIN SELECT RAISE(ABORT, 'events are appended, never changed'); END
    """,
    "postgresql": """
        CREATE TRIGGER event_append_only_{action} BEFORE {action} ON event
        FOR EACH STATEMENT EXECUTE FUNCTION event_append_only()
    """,
}
REFUSE = """
    CREATE FUNCTION event_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'events are appended, never changed'; END $$
"""


def upgrade() -> None:
    op.create_table(
        "experiment",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("parent_id", sa.String(length=32), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("material", sa.Text(), nullable=True),
        sa.Column("instrument", sa.Text(), nullable=True),
        sa.Column("policy", sa.Text(), nullable=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("engine", sa.String(length=16), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["experiment.id"], name="fk_experiment_parent_id"),
        sa.PrimaryKeyConstraint("id", name="pk_experiment"),
    )
    op.create_index("ix_experiment_created_at", "experiment", ["created_at"], unique=False)
    op.create_index("ix_experiment_instrument", "experiment", ["instrument"], unique=False)
    op.create_index("ix_experiment_material", "experiment", ["material"], unique=False)
    op.create_index("ix_experiment_name", "experiment", ["name"], unique=False)
    op.create_index("ix_experiment_parent_id", "experiment", ["parent_id"], unique=False)
    op.create_index("ix_experiment_status", "experiment", ["status"], unique=False)
    op.create_table(
        "decision",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("suggestion_id", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("action_id", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("command", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], name="fk_decision_experiment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_decision"),
        sa.UniqueConstraint("experiment_id", "seq", name="uq_decision_experiment_id_seq"),
    )
    op.create_index("ix_decision_experiment_id_status", "decision", ["experiment_id", "status"], unique=False)
    op.create_table(
        "event",
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("arrays", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], name="fk_event_experiment_id"),
        sa.PrimaryKeyConstraint("experiment_id", "seq", name="pk_event"),
    )
    op.create_index("ix_event_experiment_id_kind_seq", "event", ["experiment_id", "kind", "seq"], unique=False)
    op.create_table(
        "acquisition",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("decision_id", sa.Text(), nullable=False),
        sa.Column("action_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("intended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_s", sa.Float(precision=53), nullable=True),
        sa.Column("ended_s", sa.Float(precision=53), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("instrument", sa.Text(), nullable=True),
        sa.Column("is_simulation", sa.Boolean(), nullable=True),
        sa.Column("beam_energy_ev", sa.Float(precision=53), nullable=True),
        sa.Column("semi_convergence_angle_mrad", sa.Float(precision=53), nullable=True),
        sa.Column("probe_current_pa", sa.Float(precision=53), nullable=True),
        sa.Column("measured_current_pa", sa.Float(precision=53), nullable=True),
        sa.Column("defocus_nm", sa.Float(precision=53), nullable=True),
        sa.Column("camera_length_mm", sa.Float(precision=53), nullable=True),
        sa.Column("dwell_time_us", sa.Float(precision=53), nullable=True),
        sa.Column("flyback_time_us", sa.Float(precision=53), nullable=True),
        sa.Column("rotation_deg", sa.Float(precision=53), nullable=True),
        sa.Column("subframe_count", sa.Integer(), nullable=True),
        sa.Column("rows_px", sa.Integer(), nullable=True),
        sa.Column("columns_px", sa.Integer(), nullable=True),
        sa.Column("pixel_size_nm", sa.Float(precision=53), nullable=True),
        sa.Column("field_of_view_nm", sa.Float(precision=53), nullable=True),
        sa.Column("scale_bar_nm", sa.Float(precision=53), nullable=True),
        sa.Column("field_of_view_decade", sa.Integer(), nullable=True),
        sa.Column("dose_e_per_a2", sa.Float(precision=53), nullable=True),
        sa.Column("electrons", sa.Float(precision=53), nullable=True),
        sa.Column("stage_x_nm", sa.Float(precision=53), nullable=True),
        sa.Column("stage_y_nm", sa.Float(precision=53), nullable=True),
        sa.Column("stage_z_nm", sa.Float(precision=53), nullable=True),
        sa.Column("stage_alpha_deg", sa.Float(precision=53), nullable=True),
        sa.Column("stage_beta_deg", sa.Float(precision=53), nullable=True),
        sa.Column("beam_shift_x_nm", sa.Float(precision=53), nullable=True),
        sa.Column("beam_shift_y_nm", sa.Float(precision=53), nullable=True),
        sa.Column("context", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["decision_id"], ["decision.id"], name="fk_acquisition_decision_id"),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], name="fk_acquisition_experiment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_acquisition"),
        sa.UniqueConstraint("decision_id", name="uq_acquisition_decision_id"),
        sa.UniqueConstraint("experiment_id", "action_id", name="uq_acquisition_experiment_id_action_id"),
        sa.UniqueConstraint("experiment_id", "ordinal", name="uq_acquisition_experiment_id_ordinal"),
        sa.UniqueConstraint("path", name="uq_acquisition_path"),
    )
    op.create_index("ix_acquisition_experiment_id_status", "acquisition", ["experiment_id", "status"], unique=False)
    op.create_index("ix_acquisition_field_of_view_decade", "acquisition", ["field_of_view_decade"], unique=False)
    op.create_index(
        "ix_acquisition_instrument_mode_acquired_at", "acquisition", ["instrument", "mode", "acquired_at"], unique=False
    )
    op.create_index("ix_acquisition_sha256", "acquisition", ["sha256"], unique=False)
    op.create_table(
        "asset",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("experiment_id", sa.String(length=32), nullable=False),
        sa.Column("acquisition_id", sa.String(length=32), nullable=True),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["acquisition_id"], ["acquisition.id"], name="fk_asset_acquisition_id"),
        sa.ForeignKeyConstraint(["experiment_id"], ["experiment.id"], name="fk_asset_experiment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_asset"),
        sa.UniqueConstraint("path", "role", name="uq_asset_path_role"),
    )
    op.create_index("ix_asset_acquisition_id", "asset", ["acquisition_id"], unique=False)
    op.create_index("ix_asset_experiment_id", "asset", ["experiment_id"], unique=False)
    op.create_index("ix_asset_sha256", "asset", ["sha256"], unique=False)
    dialect = op.get_context().dialect.name
    if dialect == "postgresql":
        op.execute(REFUSE)
    for action in ("update", "delete"):
        op.execute(APPEND_ONLY[dialect].format(action=action))


def downgrade() -> None:
    dialect = op.get_context().dialect.name
    for action in ("update", "delete"):
        op.execute(f"DROP TRIGGER event_append_only_{action}" + (" ON event" if dialect == "postgresql" else ""))
    if dialect == "postgresql":
        op.execute("DROP FUNCTION event_append_only()")
    op.drop_index("ix_asset_sha256", table_name="asset")
    op.drop_index("ix_asset_experiment_id", table_name="asset")
    op.drop_index("ix_asset_acquisition_id", table_name="asset")
    op.drop_table("asset")
    op.drop_index("ix_acquisition_sha256", table_name="acquisition")
    op.drop_index("ix_acquisition_instrument_mode_acquired_at", table_name="acquisition")
    op.drop_index("ix_acquisition_field_of_view_decade", table_name="acquisition")
    op.drop_index("ix_acquisition_experiment_id_status", table_name="acquisition")
    op.drop_table("acquisition")
    op.drop_index("ix_event_experiment_id_kind_seq", table_name="event")
    op.drop_table("event")
    op.drop_index("ix_decision_experiment_id_status", table_name="decision")
    op.drop_table("decision")
    op.drop_index("ix_experiment_status", table_name="experiment")
    op.drop_index("ix_experiment_parent_id", table_name="experiment")
    op.drop_index("ix_experiment_name", table_name="experiment")
    op.drop_index("ix_experiment_material", table_name="experiment")
    op.drop_index("ix_experiment_instrument", table_name="experiment")
    op.drop_index("ix_experiment_created_at", table_name="experiment")
    op.drop_table("experiment")
