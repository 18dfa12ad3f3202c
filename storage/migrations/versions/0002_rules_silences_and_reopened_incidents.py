"""rules with versions and memory, incidents that open again, time zones, silences"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATES = "state in ('idle', 'pending', 'held', 'firing')"
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _add("site", "zone", sa.String(64), "Asia/Shanghai", comment="IANA name")
    with op.batch_alter_table("rule_state", recreate="auto") as batch:
        _forget_known_states(batch)
        batch.alter_column("rule_id", existing_type=sa.String(64), type_=sa.String(80), existing_nullable=False)
        batch.add_column(_column("version", sa.String(32), "", comment="of the rule that decided this"))
        batch.add_column(_column("memo", sa.JSON(), sa.text("'{}'"), comment="the rest of the rule's course"))
        batch.create_check_constraint(op.f("ck_rule_state_known_state"), _STATES)
    _make_silences()
    _widen_rule_id()
    _add_reference("incident", "previous_id", "incident", comment="the incident that this fault had before")
    _add("incident", "reopened", sa.Integer(), sa.text("0"), comment="how often it was opened again")
    _add("incident", "reason", sa.String(32), "", comment="why we cleared it, where not by a sample")
    _add("incident", "rule_version", sa.String(32), "")
    op.create_index("ix_incident_fault", "incident", ["device_id", "part", "fault_group", "id"])
    _add_reference("outbox", "held_by", "silence", comment="not told before this silence is over")
    _add("outbox", "dropped", sa.String(64), "", comment="why it counts as sent and was not told")
    op.create_index("ix_outbox_incident_id", "outbox", ["incident_id"])
    op.create_index("ix_ticket_history_at", "ticket_history", ["at"])
    op.create_index("ix_ticket_history_device_ms", "ticket_history", ["device_ms"])
    if not _is_sqlite():
        kinds = "opened, late, reopened, changed, cleared, closed"
        op.alter_column("outbox", "kind", comment=kinds, existing_comment="opened, changed, cleared, closed")


def downgrade() -> None:
    raise NotImplementedError("the way back is the copy of the records that `tizhuang migrate` kept")


def _make_silences() -> None:
    op.create_table(
        "silence",
        sa.Column("id", _ROW_ID, autoincrement=True, nullable=False),
        sa.Column("site_id", sa.String(64), nullable=False),
        sa.Column("device_id", sa.String(130), nullable=True, comment="null: all devices of the site"),
        sa.Column("fault_group", sa.String(64), nullable=True, comment="null: all faults"),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("include_p0", sa.Boolean(), nullable=False, comment="said explicitly, and only for one device"),
        sa.Column("starts", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("created_by", sa.String(100), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True, comment="ended by hand before its time"),
        sa.CheckConstraint("kind in ('silence', 'maintenance')", name=op.f("ck_silence_known_kind")),
        sa.CheckConstraint("ends > starts", name=op.f("ck_silence_ends_after_start")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_silence")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_silence_ends", "silence", ["ends"])


def _column(name: str, kind: sa.types.TypeEngine[Any], at_rest: Any, comment: str | None = None) -> sa.Column[Any]:
    """`at_rest`: what rows have that were there before."""
    return sa.Column(name, kind, server_default=at_rest, nullable=False, comment=comment)


def _add(table: str, name: str, kind: sa.types.TypeEngine[Any], at_rest: Any, comment: str | None = None) -> None:
    op.add_column(table, _column(name, kind, at_rest, comment))


def _forget_known_states(batch: BatchOperations) -> None:
    """SQLite copies the table, and Alembic copies no check with it."""
    if not _is_sqlite():
        batch.drop_constraint(op.f("ck_rule_state_known_state"), type_="check")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _add_reference(table: str, column: str, target: str, comment: str) -> None:
    """A nullable foreign key.

    SQLite must not copy these tables for it: dropping the old copy would delete what tickets and letters refer to.
    """
    name = f"fk_{table}_{column}_{target}"
    if _is_sqlite():
        op.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER CONSTRAINT {name} REFERENCES {target} (id)")
        return
    op.add_column(table, sa.Column(column, sa.BigInteger(), nullable=True, comment=comment))
    op.create_foreign_key(op.f(name), table, target, [column], ["id"])


def _widen_rule_id() -> None:
    """`incident.rule_id` gets another length; on SQLite as a new column in the old one's place, for the same reason."""
    if not _is_sqlite():
        op.alter_column("incident", "rule_id", type_=sa.String(80), server_default="", existing_nullable=False)
        return
    column = sa.Column("rule_id_anew", sa.String(80), server_default="", nullable=False)
    op.add_column("incident", column)
    op.execute("UPDATE incident SET rule_id_anew = rule_id")
    op.drop_column("incident", "rule_id")
    op.execute("ALTER TABLE incident RENAME COLUMN rule_id_anew TO rule_id")
