"""`tizhuang rules backtest`: what rules would have opened on the stored history."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from alerts import backtest_report
from alerts.backtest import Known
from alerts.backtest_run import SEARCH_AFTER, Asked, backtest
from alerts.backtest_run import Progress as Tell
from alerts.engine import HOME_ZONE
from core.clock import duration_ms
from core.errors import SettingsError, TizhuangError
from core.settings import Settings, load
from storage.records import address, open_records
from storage.registry import Registry

_WHEN: Final = "2026-11-01, 2026-11-01T08:00, or 7d for so long ago"


def backtest_rules(
    from_: Annotated[str, typer.Option("--from", help=_WHEN)],
    to: Annotated[str, typer.Option("--to", help=f"{_WHEN}; without it, now")] = "0s",
    rule: Annotated[
        Path | None,
        typer.Option("--rule", help="file of rules to try: they replace those of the same id, or are added"),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="folder of today's rules; default: of the settings")
    ] = None,
    site: Annotated[list[str] | None, typer.Option("--site", help="only its devices; may be repeated")] = None,
    device: Annotated[list[str] | None, typer.Option("--device", help="only this one, SITE.DEVICE or DEVICE")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="folder of the embedded databases")] = None,
    lead_in: Annotated[
        str,
        typer.Option("--lead-in", help="history before --from that is played, so that values and windows are known"),
    ] = "1h",
    every: Annotated[
        bool, typer.Option("--all", help="with --rule: judge the rules too that it cannot change")
    ] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="without it, as many as pay")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the result as one JSON document")] = False,
) -> None:
    """Plays the stored history through rules, and tells what they would have opened."""
    gc.set_threshold(SEARCH_AFTER, 20, 20)
    try:
        settings = load() if data is None else load(data={"dir": data})
        now = time.time_ns() // 1_000_000
        asked = Asked(
            rules=rules or settings.alerts.rules,
            other=rule,
            start=instant(from_, now),
            end=instant(to, now),
            lead_ms=_length(lead_in),
            every=every,
        )
        if asked.start >= asked.end:
            raise SettingsError(f"--from {from_} is not before --to {to}")
        devices = _register(settings)
        with _bar() as tell:
            result = backtest(
                settings,
                asked,
                devices,
                chosen=lambda device_id: _is_chosen(device_id, site or [], device or []),
                processes=processes,
                progress=tell,
            )
    except TizhuangError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        for line in backtest_report.lines(result, written):
            typer.echo(line)


def instant(text: str, now: int, zone: tzinfo = HOME_ZONE) -> int:
    """`2026-11-01`, `2026-11-01T08:00` (in our zone, where it names none) or `7d` ago as Unix ms.

    Raises SettingsError.
    """
    try:
        return now - duration_ms(text)
    except ValueError:
        pass
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"'{text}' is no time; write it like {_WHEN}") from None
    return round((told if told.tzinfo else told.replace(tzinfo=zone)).timestamp() * 1_000)


def written(ts: int) -> str:
    """A device time for people, in our zone."""
    return datetime.fromtimestamp(ts / 1_000, HOME_ZONE).strftime("%Y-%m-%d %H:%M:%S")


def _length(text: str) -> int:
    try:
        return duration_ms(text)
    except ValueError as error:
        raise SettingsError(f"--lead-in: {error}") from None


def _is_chosen(device_id: str, sites: list[str], devices: list[str]) -> bool:
    site, _, name = device_id.partition(".")
    return (not sites or site in sites) and (not devices or device_id in devices or name in devices)


def _register(settings: Settings) -> dict[str, Known]:
    """What is registered; devices that are not have no fixed facts."""
    with closing(open_records(address(settings.database.url, settings.data.dir))) as records:
        registry = Registry(records)
        zones: dict[str, tzinfo] = {site.id: ZoneInfo(site.zone) for site in registry.sites()}
        return {one.id: Known(one.kind, one.statics, zones.get(one.site_id, HOME_ZONE)) for one in registry.devices()}


@contextmanager
def _bar() -> Iterator[Tell]:
    """A progress bar, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn("playing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda share: progress.update(task, completed=share)
