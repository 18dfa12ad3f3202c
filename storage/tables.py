"""The records schema: places, devices, contractors, incidents, tickets and their history, outbox, quarantine.

All times are Unix milliseconds. `device_ms` columns are the device's clock, all others ours. Migrations in
`storage/migrations` create exactly this; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself only for INTEGER

site = Table(
    "site",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("zh", String(200), nullable=False),
    Column("en", String(200), nullable=False),
    Column("street_zh", String(200), nullable=False, server_default=""),
    Column("street_en", String(200), nullable=False, server_default=""),
    Column("latitude", Float),
    Column("longitude", Float),
    Column("zone", String(64), nullable=False, server_default="Asia/Shanghai", comment="IANA name"),
)

building = Table(
    "building",
    metadata,
    Column("id", String(130), primary_key=True),
    Column("site_id", ForeignKey("site.id"), nullable=False, index=True),
    Column("zh", String(200), nullable=False),
    Column("en", String(200), nullable=False),
)

contractor = Table(
    "contractor",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("zh", String(200), nullable=False),
    Column("en", String(200), nullable=False),
)

device = Table(
    "device",
    metadata,
    Column("id", String(130), primary_key=True, comment="site.device"),
    Column("site_id", String(64), nullable=False, index=True, comment="no foreign key: a stranger may name any site"),
    Column("kind", String(32), nullable=False),
    Column("zh", String(200), nullable=False, server_default=""),
    Column("en", String(200), nullable=False, server_default=""),
    Column("building_id", ForeignKey("building.id")),
    Column("contractor_id", ForeignKey("contractor.id")),
    Column("registered", Boolean, nullable=False, comment="false: heard on the broker, not yet adopted by a person"),
    Column("statics", JSON, nullable=False, comment="rated_speed_mps, floors, ports, model, ..."),
    Column("first_seen", BigInteger, nullable=False),
)

incident = Table(
    "incident",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("device_id", ForeignKey("device.id"), nullable=False),
    Column("part", String(16), nullable=False),
    Column("fault_group", String(64), nullable=False),
    Column("rule_id", String(80), nullable=False, server_default="", comment="the rule that opened it"),
    Column("severity", String(2), nullable=False),
    Column("title_zh", String(200), nullable=False),
    Column("title_en", String(200), nullable=False),
    Column("what_to_do_zh", String(1000), nullable=False, server_default=""),
    Column("what_to_do_en", String(1000), nullable=False, server_default=""),
    Column("needs_clear", Boolean, nullable=False, comment="an entrapment: a person must state that it is over"),
    Column("opened_device_ms", BigInteger, nullable=False),
    Column("opened", BigInteger, nullable=False),
    Column("late", Boolean, nullable=False, comment="older than the rule's deadline when it reached us: pages nobody"),
    Column("evidence", JSON, nullable=False),
    Column("cleared_device_ms", BigInteger, comment="since when no rule of the group is firing; null: still firing"),
    Column("closed", BigInteger),
    Column("outcome", String(32)),
    Column("previous_id", ForeignKey("incident.id"), comment="the incident that this fault had before"),
    Column("reopened", Integer, nullable=False, server_default=text("0"), comment="how often it was opened again"),
    Column("reason", String(32), nullable=False, server_default="", comment="why we cleared it, where not by a sample"),
    Column("rule_version", String(32), nullable=False, server_default=""),
    Index("ix_incident_device_opened", "device_id", "opened"),
    Index("ix_incident_fault", "device_id", "part", "fault_group", "id"),
    sqlite_autoincrement=True,
)

one_open_incident = Index(
    "uq_incident_open",
    incident.c.device_id,
    incident.c.part,
    incident.c.fault_group,
    unique=True,
    sqlite_where=incident.c.closed.is_(None),
    postgresql_where=incident.c.closed.is_(None),
)
"""One fault = one ticket, held by the database itself."""

ticket = Table(
    "ticket",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("incident_id", ForeignKey("incident.id"), nullable=False, unique=True),
    Column("state", String(16), nullable=False, index=True),
    Column("contractor_id", ForeignKey("contractor.id")),
    Column("created", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

ticket_history = Table(
    "ticket_history",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("ticket_id", ForeignKey("ticket.id"), nullable=False, index=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("device_ms", BigInteger, index=True, comment="the device time of what happened, where a device caused it"),
    Column("actor", String(100), nullable=False, comment="who: a person's or contractor's name, or 'tizhuang'"),
    Column("action", String(32), nullable=False),
    Column("from_state", String(16)),
    Column("to_state", String(16), nullable=False),
    Column("note", String(2000), nullable=False, server_default=""),
    Column("facts", JSON, nullable=False),
    sqlite_autoincrement=True,
)
"""Append-only. Its ids are also the change numbers that live pages follow (Last-Event-ID)."""

rule_state = Table(
    "rule_state",
    metadata,
    Column("device_id", String(130), primary_key=True),
    Column("part", String(16), primary_key=True),
    Column("rule_id", String(80), primary_key=True),
    Column("state", String(8), nullable=False),
    Column("since_device_ms", BigInteger, nullable=False),
    Column("changed_device_ms", BigInteger, nullable=False),
    Column("event_ids", JSON, nullable=False, comment="ids of the last events taken, so that a repeat is known"),
    Column("version", String(32), nullable=False, server_default="", comment="of the rule that decided this"),
    Column("memo", JSON, nullable=False, server_default=text("'{}'"), comment="the rest of the rule's course"),
    CheckConstraint("state in ('idle', 'pending', 'held', 'firing')", name="known_state"),
)
"""What the engine must remember through a kill -9."""

silence = Table(
    "silence",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("site_id", String(64), nullable=False),
    Column("device_id", String(130), comment="null: all devices of the site"),
    Column("fault_group", String(64), comment="null: all faults"),
    Column("kind", String(16), nullable=False),
    Column("include_p0", Boolean, nullable=False, comment="said explicitly, and only for one device"),
    Column("starts", BigInteger, nullable=False),
    Column("ends", BigInteger, nullable=False, index=True),
    Column("reason", String(500), nullable=False),
    Column("created_by", String(100), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("ended", BigInteger, comment="ended by hand before its time"),
    CheckConstraint("kind in ('silence', 'maintenance')", name="known_kind"),
    CheckConstraint("ends > starts", name="ends_after_start"),
    sqlite_autoincrement=True,
)
"""Times when nobody is told. Faults are followed all the same."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("incident_id", ForeignKey("incident.id"), nullable=False, index=True),
    Column("kind", String(32), nullable=False, comment="opened, late, reopened, changed, cleared, closed"),
    Column("payload", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("claimed_by", String(100)),
    Column("claimed", BigInteger),
    Column("sent", BigInteger),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_error", String(500), nullable=False, server_default=""),
    Column("held_by", ForeignKey("silence.id"), comment="not told before this silence is over"),
    Column("dropped", String(64), nullable=False, server_default="", comment="why it counts as sent and was not told"),
    Index("ix_outbox_unsent", "id", sqlite_where=text("sent IS NULL"), postgresql_where=text("sent IS NULL")),
    sqlite_autoincrement=True,
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", _RowId, primary_key=True, autoincrement=True),
    Column("topic", String(1000), nullable=False),
    Column("payload_head", LargeBinary, nullable=False, comment="the first 4 KiB"),
    Column("payload_bytes", BigInteger, nullable=False),
    Column("digest", String(32), nullable=False, comment="of topic and whole payload: repeats share a row"),
    Column("reason", String(2000), nullable=False),
    Column("first_rx", BigInteger, nullable=False),
    Column("last_rx", BigInteger, nullable=False, index=True),
    Column("count", BigInteger, nullable=False, server_default=text("1")),
    UniqueConstraint("digest"),
    sqlite_autoincrement=True,
)

first_receipt = Table(
    "first_receipt",
    metadata,
    Column("digest", String(32), primary_key=True, comment="of topic and payload of a message without a usable clock"),
    Column("rx", BigInteger, nullable=False, index=True),
)
"""When a message without a usable clock came first: its redelivery gets the same time and so the same point."""
