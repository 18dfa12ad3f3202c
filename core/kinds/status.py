"""The two payloads that all kinds share: `status` (also the last will) and `event`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from core.fields import MAX_COUNT, Wire, field
from core.kinds.charger import MAX_PORTS


class Status(Wire):
    """Online or not, retained. As a last will it is published by the broker when the device falls silent."""

    ts: int = Field(description="device time, Unix milliseconds")
    seq: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    online: bool | None = field("在线", "online", stale_ms=10 * 365 * 86_400_000)
    firmware: str | None = field("固件版本", "firmware", max_length=64, stale_ms=10 * 365 * 86_400_000)


class EventPayload(Wire):
    """A fault code raised or cleared. `table` names the versioned code table that gives the code its meaning."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="unique per device; a repeat of the same id is the same event"
    )
    ts: int = Field(description="device time, Unix milliseconds")
    seq: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
    table: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    state: Literal["raised", "cleared"]
    port: int | None = Field(default=None, ge=1, le=MAX_PORTS, description="chargers: which port, from 1")
