"""The tables, as the code sees them now; `migrations` is how a database gets there, and a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

HEAD: Final = "0002"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; refuses one without a time zone, gives one with it back on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; give datetime.now(UTC)")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From the database; SQLite forgets the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

experiment = Table(
    "experiment",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("parent_id", String(32), ForeignKey("experiment.id"), index=True),
    Column("name", Text, nullable=False, index=True),
    Column("status", String(16), nullable=False, index=True),
    Column("reason", Text),
    Column("material", Text, index=True),
    Column("instrument", Text, index=True),
    Column("policy", Text),
    Column("spec", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("engine", String(16), nullable=False),
    Column("options", JSON, nullable=False),
    Column("context", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
)

event = Table(
    "event",
    metadata,
    Column("experiment_id", String(32), ForeignKey("experiment.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(64), nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("arrays", LargeBinary),
    Index(None, "experiment_id", "kind", "seq"),
)

decision = Table(
    "decision",
    metadata,
    Column("id", Text, primary_key=True),
    Column("experiment_id", String(32), ForeignKey("experiment.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("suggestion_id", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("action_id", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_reason", Text),
    Column("intended_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("body", JSON, nullable=False),
    Column("command", JSON, nullable=False),
    UniqueConstraint("experiment_id", "seq"),
    Index(None, "experiment_id", "status"),
)

acquisition = Table(
    "acquisition",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("experiment_id", String(32), ForeignKey("experiment.id"), nullable=False),
    Column("decision_id", Text, ForeignKey("decision.id"), nullable=False, unique=True),
    Column("action_id", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("path", Text, nullable=False, unique=True),
    Column("sha256", String(64), index=True),
    Column("size_bytes", BigInteger),
    Column("intended_at", UtcDateTime, nullable=False),
    Column("acquired_at", UtcDateTime),
    Column("started_s", Float(53)),
    Column("ended_s", Float(53)),
    Column("purpose", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("instrument", Text),
    Column("is_simulation", Boolean),
    Column("beam_energy_ev", Float(53)),
    Column("semi_convergence_angle_mrad", Float(53)),
    Column("probe_current_pa", Float(53)),
    Column("measured_current_pa", Float(53)),
    Column("defocus_nm", Float(53)),
    Column("camera_length_mm", Float(53)),
    Column("dwell_time_us", Float(53)),
    Column("flyback_time_us", Float(53)),
    Column("rotation_deg", Float(53)),
    Column("subframe_count", Integer),
    Column("rows_px", Integer),
    Column("columns_px", Integer),
    Column("pixel_size_nm", Float(53)),
    Column("field_of_view_nm", Float(53)),
    Column("scale_bar_nm", Float(53)),
    Column("field_of_view_decade", Integer),
    Column("dose_e_per_a2", Float(53)),
    Column("electrons", Float(53)),
    Column("stage_x_nm", Float(53)),
    Column("stage_y_nm", Float(53)),
    Column("stage_z_nm", Float(53)),
    Column("stage_alpha_deg", Float(53)),
    Column("stage_beta_deg", Float(53)),
    Column("beam_shift_x_nm", Float(53)),
    Column("beam_shift_y_nm", Float(53)),
    Column("context", JSON),
    UniqueConstraint("experiment_id", "ordinal"),
    UniqueConstraint("experiment_id", "action_id"),
    Index(None, "experiment_id", "status"),
    Index(None, "instrument", "mode", "acquired_at"),
    Index(None, "field_of_view_decade"),
)

asset = Table(
    "asset",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("experiment_id", String(32), ForeignKey("experiment.id"), nullable=False, index=True),
    Column("acquisition_id", String(32), ForeignKey("acquisition.id"), index=True),
    Column("role", String(32), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("path", "role"),
)

queue_entry = Table(
    "queue_entry",
    metadata,
    Column("experiment_id", String(32), ForeignKey("experiment.id"), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("instrument", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("not_before", UtcDateTime),
    Column("not_after", UtcDateTime),
    Column("wanted", String(16)),
    Column("wanted_by", Text),
    Column("reason", Text),
    Column("claimed_by", Text),
    Column("fence", BigInteger),
    Column("started_count", Integer, nullable=False),
    Column("started_at", UtcDateTime),
    Column("version", Integer, nullable=False),
    Column("submitted_by", Text),
    Column("created_at", UtcDateTime, nullable=False),
)
# In the order of execution: for the next of an instrument, and for pages over all instruments.
Index(
    "ix_queue_entry_claim",
    queue_entry.c.instrument,
    queue_entry.c.status,
    queue_entry.c.priority.desc(),
    queue_entry.c.seq,
    queue_entry.c.not_before,
)
Index("ix_queue_entry_page", queue_entry.c.status, queue_entry.c.priority.desc(), queue_entry.c.seq)
Index("ix_queue_entry_window", queue_entry.c.status, queue_entry.c.not_after)

instrument_lease = Table(
    "instrument_lease",
    metadata,
    Column("instrument", Text, primary_key=True),
    Column("holder", Text),
    Column("experiment_id", String(32), ForeignKey("experiment.id")),
    Column("fence", BigInteger, nullable=False),
    Column("renewal_count", BigInteger, nullable=False),
    Column("length_s", Float(53), nullable=False),
    Column("claimed_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("asked_at", UtcDateTime),
    Column("asked_by", Text),
    Column("locked_reason", Text),
    Column("locked_by", Text),
    Column("locked_at", UtcDateTime),
    Column("blanked_at", UtcDateTime),
)

upload = Table(
    "upload",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", String(128), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("token_id", String(32), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("method", String(16), nullable=False),
    Column("path", Text, nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("status", Integer),
    Column("headers", JSON),
    Column("body", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)
