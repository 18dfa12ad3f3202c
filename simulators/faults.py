"""The registry of faults on demand: what really is wrong, how it looks on the wire, and which rules should tell.

A fault is one entry of `simulators.lift_faults` or `simulators.pile_faults`. Codes need no entry: `code:5` sends code 5
of `gbt24476`, `code:bacnet-lift/10` one of another table, and `code:ebike_in_car` a fault by its name.
"""

from __future__ import annotations

from typing import Final

from core.errors import SettingsError
from core.faults import FAULTS as CATALOGUE
from core.faults import TABLES
from simulators.fault import LIFT, PILE, Cue, SimulatedFault, changed, same
from simulators.lift_faults import LIFT_FAULTS, MODE_OF_CODE
from simulators.pile_faults import PILE_FAULTS

__all__ = ["CODE", "FAULTS", "SimulatedFault", "find", "known"]

CODE: Final = "code:"
"""Prefix of the one fault with an argument: `code:5`, `code:dny/alarm-2`, `code:leakage`."""

CODES: Final = "gbt24476"
"""The table of a code that names none."""

FAULTS: Final = {
    fault.name: fault
    for fault in (
        *LIFT_FAULTS,
        *PILE_FAULTS,
        SimulatedFault(
            "silence", LIFT + PILE, "device stops reporting", None, silent=True, group="offline", told_s=610
        ),
        SimulatedFault(
            "offline",
            LIFT + PILE,
            "device's last will says offline, then silence",
            None,
            silent=True,
            offline=True,
            group="offline",
            told_s=215,
        ),
    )
}


def find(name: str) -> SimulatedFault:
    """The fault of that name, `code:N` included. SettingsError lists what is known."""
    if name.startswith(CODE):
        return _code(name.removeprefix(CODE))
    if name not in FAULTS:
        raise SettingsError(f"unknown fault '{name}'; known: {', '.join(known())}")
    return FAULTS[name]


def known() -> tuple[str, ...]:
    """Names for help texts and errors."""
    return (*FAULTS, CODE + "N")


def _code(text: str) -> SimulatedFault:
    table, _, code = text.rpartition("/")
    table = table or _table_of(code)
    if table not in TABLES:
        raise SettingsError(f"'{CODE}{text}': there is no table '{table}'; there are {', '.join(TABLES)}")
    codes = TABLES[table].codes
    if code not in codes:
        raise SettingsError(f"'{CODE}{text}': {table} has no code '{code}'; it has {', '.join(codes)}")
    changes = MODE_OF_CODE.get(code, {}) if table.startswith(CODES) else {}
    kind = CATALOGUE[codes[code]].kind
    overlay = changed(**changes) if changes else same
    cues = (Cue(0, table, code),)
    on_port = table == "dny" and not code.startswith("alarm-")
    return SimulatedFault(CODE + text, (kind,), f"sends code {code}", codes[code], overlay, cues, on_port=on_port)


def _table_of(code: str) -> str:
    """A code that names no table is one of the national standard, or one of our own names."""
    fault = CATALOGUE.get(code)
    return CODES if fault is None else f"names-{fault.kind}"
