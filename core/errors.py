"""Every error of the product, on one page.

An error says what happened in plain words, carries its facts as attributes, and says whether trying again helps
(`retry`). Code at the edges (command line, API, worker) turns these into exit codes, HTTP answers or quarantine rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TizhuangError(Exception):
    """Base of all our errors. `str(error)` is one line that a person can act on."""

    retry = False


class Fault(NamedTuple):
    """One thing wrong with a payload: where (`ports[2].power_w`) and why."""

    field: str
    reason: str


class BadPayload(TizhuangError):
    """A message that cannot become readings. It goes to quarantine with all its faults, never back to the broker."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{f.field}: {f.reason}" if f.field else f.reason for f in self.faults))

    @classmethod
    def one(cls, reason: str, field: str = "") -> BadPayload:
        return cls([Fault(field, reason)])


class RuleError(TizhuangError):
    """A rule file or expression that cannot be used. Names the file, the rule and the place."""


class ExpressionError(TizhuangError):
    """An expression that does not parse. `column` counts from 1."""

    def __init__(self, reason: str, column: int) -> None:
        self.reason = reason
        self.column = column
        super().__init__(f"column {column}: {reason}")


class IllegalMove(TizhuangError):
    """A ticket action that its present state does not allow. Nothing was changed."""

    def __init__(self, action: str, state: str, allowed: Sequence[str]) -> None:
        self.action = action
        self.state = state
        self.allowed = tuple(allowed)
        super().__init__(
            f"'{action}' is not possible while the ticket is '{state}'; possible now: {', '.join(allowed) or 'nothing'}"
        )


class MissingField(TizhuangError):
    """A ticket action that needs something said with it. Nothing was changed."""

    def __init__(self, action: str, field: str, reason: str) -> None:
        self.action = action
        self.field = field
        self.reason = reason
        super().__init__(f"'{action}' needs {field}: {reason}")


class NotFound(TizhuangError):
    """A thing that was asked for by an id that nothing has."""

    def __init__(self, what: str, id: object) -> None:
        self.what = what
        self.id = id
        super().__init__(f"there is no {what} '{id}'")


class StoreUnavailable(TizhuangError):
    """A database did not take or give data just now; the data is unharmed and a retry may help.

    `retry_after_s`: how long it asked to be left alone, where it said so.
    """

    retry = True

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class SpoolFull(TizhuangError):
    """Neither the series store nor the spool takes more. Nothing is acknowledged until one of them does."""

    retry = True


class DataFolderError(TizhuangError):
    """The data folder cannot be used as it is; nothing in it was changed."""


class AddressInUse(TizhuangError):
    """Another program listens on a port we were told to use."""

    def __init__(self, what: str, host: str, port: int, option: str) -> None:
        self.port = port
        super().__init__(f"{what}: port {port} on {host} is in use by another program; choose another with {option}")


class SettingsError(TizhuangError):
    """A setting that is missing or cannot be understood. Names the setting."""
