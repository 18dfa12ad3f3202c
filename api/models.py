"""Every answer of the JSON API, as models: they validate, and they are the OpenAPI document, which is one page.

All times are Unix milliseconds (UTC). Fields ending in `_device_ms` and every `ts` are by the device's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from core.reading import Value
from core.ticket import CLEAR_STATEMENT
from core.topics import split_device_id

DeviceState = Literal["online", "offline", "never"]
"""`never`: not one sign of life yet, only what the broker retained or the register says."""

Ms = Annotated[int, Field(description="Unix milliseconds", examples=[1_795_312_374_000])]
Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | int | None = Field(
        default=None, description="pass it as `before_id` (devices: `after_id`) for the next page; null: this was all"
    )


class Problem(BaseModel):
    """What is wrong."""

    code: str = Field(description="stable, for programs", examples=["illegal_move"])
    message: str = Field(description="one line for people, in English")
    field: str | None = Field(default=None, description="which field, where it is about one", examples=["note"])


class ErrorAnswer(BaseModel):
    """The one shape of all errors."""

    error: Problem


class Name(BaseModel):
    """A name or title in both languages."""

    zh: str
    en: str

    @classmethod
    def of_device(cls, device_id: str, zh: str, en: str) -> Name:
        """A device nobody named is called by its own id: `lift-01`."""
        own = split_device_id(device_id)[1]
        return cls(zh=zh or own, en=en or own)

    def of(self, lang: str) -> str:
        """In one language, or in the other where that one is empty."""
        return (self.zh or self.en) if lang == "zh" else (self.en or self.zh)


class Party(BaseModel):
    """A building or contractor."""

    id: str
    name: Name

    @classmethod
    def known(cls, party_id: str | None, names: Mapping[str, tuple[str, str]]) -> Party | None:
        """`names`: (zh, en) by id, as the register gives them; an id without a name stands for itself."""
        if party_id is None:
            return None
        zh, en = names.get(party_id, (party_id, party_id))
        return cls(id=party_id, name=Name(zh=zh, en=en))


class FieldValue(BaseModel):
    """The newest value of one field."""

    value: Value
    unit: str = Field(description="empty for counts, words and yes/no", examples=["°C"])
    ts: Ms
    age_ms: int = Field(description="how old it is now, by the device's clock; never negative")
    stale: bool = Field(description="older than the field's limit: rules treat it as unknown")


class Part(BaseModel):
    """A device itself (part \"\") or one of its ports (\"1\", \"2\", ...)."""

    ts: Ms
    values: dict[str, FieldValue]


class Device(BaseModel):
    """A device in a list."""

    id: str = Field(examples=["fenghe.lift-01"])
    site: str
    kind: str = Field(examples=["elevator", "charger"])
    name: Name
    building: Party | None
    contractor: Party | None
    registered: bool = Field(description="false: heard on the broker, not yet adopted by a person")
    state: DeviceState
    last_seen: Ms | None = Field(description="when we received the newest sign of life")
    age_ms: int | None = Field(description="milliseconds since last_seen")
    severity: str | None = Field(description="of the most urgent open incident", examples=["P0"])
    open_incidents: int


class DeviceDetail(Device):
    """One device with everything known of it."""

    statics: dict[str, Any] = Field(description="what does not change: model, floors, ports, rated_speed_mps, ...")
    first_seen: Ms
    parts: dict[str, Part] = Field(description='by part: "" is the device itself, "1", "2", ... its ports')
    incidents: list[Incident] = Field(description="open ones, newest first")
    tickets: list[Ticket] = Field(description="open ones, most urgent first")
    events: list[Event] = Field(description="of the last 7 days, newest first, at most 50")
    history_away: str = Field(description="why the series store has no events and charts just now, or empty")


class Event(BaseModel):
    """A fault code that the device raised or cleared."""

    part: str
    ts: Ms
    rx: Ms = Field(description="when we received it")
    id: str
    table: str = Field(description="code table", examples=["gbt24476"])
    code: str
    fault: str | None = Field(description="name in the fault catalogue; null: the table does not know the code")
    name: Name | None
    raised: bool = Field(description="true: raised, false: cleared")


class SiteKind(BaseModel):
    """Devices of one kind at one site."""

    kind: str
    devices: int
    online: int
    with_fault: int = Field(description="devices with an open incident")


class Site(BaseModel):
    """One neighbourhood."""

    id: str
    name: Name
    street: Name
    latitude: float | None = Field(description="WGS84 degrees")
    longitude: float | None = Field(description="WGS84 degrees")
    registered: bool = Field(description="false: only known from topics of devices that nobody registered")
    kinds: list[SiteKind]
    open_incidents: dict[str, int] = Field(description="count by severity", examples=[{"P0": 1}])


class SeriesBucket(BaseModel):
    """One step of a window. Text and yes/no have only `last`."""

    start: Ms
    points: int
    last: Value
    mean: float | None
    min: float | None
    max: float | None


class Series(BaseModel):
    """One field over time, down-sampled. Steps without a point are left out."""

    model_config = ConfigDict(populate_by_name=True)

    device: str
    part: str
    field: str
    unit: str
    from_: Ms = Field(serialization_alias="from", validation_alias="from")
    to: Ms
    step: int = Field(description="milliseconds")
    buckets: list[SeriesBucket]


class Incident(BaseModel):
    """A rule that fired for a device."""

    id: int
    device: str
    part: str
    group: str = Field(description="fault group: rules of one group share an incident", examples=["entrapment"])
    rule: str
    severity: str = Field(examples=["P0"])
    title: Name
    what_to_do: Name
    needs_clear: bool = Field(description="an entrapment: a person must state that it is over")
    opened_device_ms: Ms
    opened: Ms
    late: bool = Field(description="the data was older than the rule's deadline: history, it paged nobody")
    evidence: dict[str, Any] = Field(description="why the rule fired: condition, since when, the values it saw")
    cleared_device_ms: Ms | None = Field(description="since when no rule of the group fires; null: still firing")
    closed: Ms | None
    outcome: str | None = Field(examples=["fixed", "false_alarm", "recovered", "rule_deleted"])
    previous: int | None = Field(description="the incident that this fault had before, not longer ago than 30 days")
    reopened: int = Field(description="how often it was opened again because the fault came back soon")
    reason: str = Field(description="why it was cleared, where not by what the device said", examples=["rule-deleted"])
    rule_version: str


class Ticket(BaseModel):
    """Work that somebody owes."""

    id: int
    incident: int
    state: str = Field(examples=["dispatched"])
    step: int = Field(description="which of the six steps 受理 立案 派遣 处置 核查 结案, from 1")
    severity: str = Field(examples=["P0"])
    title: Name
    site: str
    device: str
    device_name: Name
    part: str
    kind: str
    group: str
    contractor: Party | None
    needs_clear: bool = Field(description="an entrapment: closing it takes the statement `clear`")
    late: bool
    opened_device_ms: Ms
    cleared_device_ms: Ms | None
    created: Ms
    changed: Ms
    closed: Ms | None
    outcome: str | None


class HistoryEntry(BaseModel):
    """One line of a ticket's history, which is never changed."""

    id: int = Field(description="the change number that /api/v1/live sends as event id")
    at: Ms
    device_ms: Ms | None
    actor: str = Field(description="a person's or contractor's name, or `tizhuang`")
    action: str
    from_state: str | None
    to_state: str
    note: str
    facts: dict[str, Any]


class Action(BaseModel):
    """A move that is possible now."""

    action: str = Field(examples=["accept"])
    target: str = Field(description="the state it leads to")
    requires: list[str] = Field(description="what must be said with it besides `actor`", examples=[["note", "clear"]])


class EvidenceValue(BaseModel):
    """A value that a rule saw when it fired."""

    field: str
    name: Name
    value: Value
    unit: str
    ts: Ms | None


class TicketDetail(Ticket):
    """A ticket with its history and what can be done now."""

    rule: str
    what_to_do: Name
    evidence: dict[str, Any]
    evidence_values: list[EvidenceValue] = Field(description="the same values, with name and unit")
    actions: list[Action]
    history: list[HistoryEntry] = Field(description="oldest first")


class ActionBody(BaseModel):
    """What somebody says with an action."""

    model_config = ConfigDict(extra="forbid")

    actor: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] = Field(
        description="who acts", examples=["王师傅"]
    )
    note: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000)] = ""
    clear: bool = Field(default=False, description=f"the statement '{CLEAR_STATEMENT}' 乘客已全部救出、电梯已恢复正常")


class Quarantined(BaseModel):
    """A message that could not become readings."""

    id: int
    topic: str
    reason: str
    text: str = Field(description="head of the payload as UTF-8; what is not UTF-8 shows as U+FFFD")
    base64: str = Field(description="the same bytes, exactly")
    payload_bytes: int = Field(description="length of the whole payload")
    cut: bool = Field(description="the payload was longer than the head that is kept")
    first_rx: Ms
    last_rx: Ms
    times: int = Field(description="how often these bytes came on this topic")


class Stats(BaseModel):
    """Counts since the start of the ingest worker, and what stands in the records."""

    connected: bool = Field(description="the worker is connected to the broker")
    blocked_by: str = Field(description="why nothing is acknowledged just now, or empty")
    store_away: str = Field(description="why the series store takes no data (messages go to the spool), or empty")
    received: int
    carried: int = Field(description="messages that an earlier process left in the spool")
    stored: int
    duplicate: int
    quarantined: int
    spooled: int = Field(description="messages in the spool now, on their way to the series store")
    spool_bytes: int
    spool_limit_bytes: int
    spool_oldest_rx: Ms | None = Field(description="receive time of the oldest message in the spool")
    in_flight: int
    balance: int = Field(
        description="received + carried - stored - duplicate - quarantined - spooled - in_flight; 0 between two batches"
    )
    acked: int
    readings: int
    events: int
    clockless: int = Field(description="messages whose device time was not believed")
    late_samples: int
    alerts_lost: int = Field(description="decisions of the rules that could not be written; the log has each")
    unknown_fields: int
    unknown_fields_dropped: int
    open_tickets: int
    quarantine_rows: int
    quarantine_messages: int
    outbox_waiting: int = Field(description="announcements not delivered yet")


class Silence(BaseModel):
    """A time when nobody is told of faults. They are followed, and have their tickets, all the same."""

    id: int
    site: str
    device: str | None = Field(description="null: all devices of the site")
    group: str | None = Field(description="fault group; null: all")
    kind: str = Field(examples=["silence", "maintenance"])
    include_p0: bool = Field(description="P0 is held back too")
    starts: Ms
    ends: Ms
    reason: str
    actor: str
    created: Ms
    ended: Ms | None = Field(description="when somebody ended it before its time")
    active: bool = Field(description="it holds now")


class SilenceBody(BaseModel):
    """A silence, or a maintenance window of a device. Without `starts` it begins now."""

    model_config = ConfigDict(extra="forbid")

    site: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="may be left out where `device` is named"
    )
    device: Annotated[str, StringConstraints(max_length=130)] | None = Field(default=None, examples=["fenghe.lift-01"])
    group: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    kind: Literal["silence", "maintenance"] = "silence"
    include_p0: bool = Field(
        default=False,
        description="hold life safety back too: only for a named device. A device's maintenance window does so anyway",
    )
    starts: Annotated[int, Field(ge=0, le=2**53)] | None = None
    ends: Annotated[int, Field(ge=0, le=2**53)]
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
    actor: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] = Field(
        description="who silences", examples=["王师傅"]
    )


class AlarmSource(BaseModel):
    """One rule on one part of a device."""

    rule: str
    device: str
    part: str


class AlarmLoad(BaseModel):
    """What the people of one site had to answer. Late alarms page nobody and do not count."""

    site: str
    alarms: int
    average: float = Field(description="alarms in 10 minutes; 1 is acceptable, 2 at most")
    peak: int = Field(description="the most in one period of 10 minutes; no more than 10")
    peak_start: Ms | None
    flood_share: float = Field(description="periods with more than 10 alarms, from 0 to 1; less than 0.01")


class AlarmOffender(AlarmSource):
    """One of the ten that raise most."""

    alarms: int
    share: float = Field(description="of all alarms, from 0 to 1")


class AlarmChatter(AlarmSource):
    """It raises and clears again and again; there should be none."""

    most: int = Field(description="raises within 60 seconds, at the worst; 0: only the rules found it unstable")
    unstable: int = Field(description="how often the rules found it unstable")


class StaleAlarm(AlarmSource):
    """Open for more than 24 hours; fewer than 5 in a day."""

    incident: int
    severity: str
    opened: Ms
    closed: Ms | None


class FalseAlarmRate(BaseModel):
    """Of the incidents that were closed: how many a person called a false alarm."""

    name: str = Field(description="rule or device")
    closed: int
    false_alarms: int
    rate: float


class AlarmQuality(BaseModel):
    """Measures of alarm management (ANSI/ISA-18.2, IEC 62682). Use them over 30 days or more."""

    model_config = ConfigDict(populate_by_name=True)

    from_: Ms = Field(serialization_alias="from", validation_alias="from")
    to: Ms
    alarms: int = Field(description="times that a rule fired")
    late: int = Field(description="of them: reached us after the rule's deadline")
    loads: list[AlarmLoad] = Field(description="by operator position, which here is a site")
    severities: dict[str, int] = Field(description="alarms by severity", examples=[{"P1": 3, "P3": 40}])
    offenders: list[AlarmOffender] = Field(description="the ten that raise most; together no more than 5 % of all")
    chattering: list[AlarmChatter] = Field(description="3 raises or more within 60 seconds, or found unstable")
    stale: list[StaleAlarm]
    false_alarms_by_rule: list[FalseAlarmRate]
    false_alarms_by_device: list[FalseAlarmRate]


class RuleInForce(BaseModel):
    """One rule as it is judged, with default parameters."""

    id: str
    version: str = Field(description="changes with everything that decides, not with words")
    kind: str
    part: str
    group: str = Field(description="rules of one group share an incident and a ticket")
    severity: str
    title: Name
    what_to_do: Name
    when: str | None
    events: list[str]
    for_ms: int
    silence_ms: int | None
    clear: str | None
    inhibited_by: list[str]
    trouble: str = Field(description="why it could not be evaluated the last time it could not; empty: it always could")


class RulesInForce(BaseModel):
    """All rules."""

    digest: str = Field(description="of the rule files that are in force")
    refused: str = Field(description="why the files as they are now are not in force; empty: they are")
    items: list[RuleInForce]


class Health(BaseModel):
    """Whether the service is alive or ready."""

    status: Literal["ok", "not_ready"]
    reasons: list[str] = []
