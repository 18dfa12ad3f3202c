"""`tizhuang rules test`: plays test cases. `tizhuang rules export`: writes one of what happened around an incident."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from alerts.caseexport import Story, as_case
from alerts.casefile import CaseFile, load_cases
from alerts.player import WAYS, Case, Way, difference, line_of
from core.errors import DataFolderError, RuleError, SettingsError, TizhuangError
from core.settings import load
from storage.drivers import open_history
from storage.incidents import Incidents
from storage.records import address, open_records
from storage.registry import Registry


class Failure(NamedTuple):
    """A case that does not come out as written."""

    place: str
    about: str
    way: Way
    difference: str


def play_cases(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="files of cases, or folders of them; default: tests/ beside the rules")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="folder of the rules, for cases that do not bring or name theirs")
    ] = None,
    every_way: Annotated[
        bool, typer.Option("--every-way", help="also with a restart after every step, and with ten messages at once")
    ] = False,
) -> None:
    """Plays test cases through the rules, and says what came out otherwise (exit code 1)."""
    try:
        files = _found(paths or [(rules or load().alerts.rules) / "tests"])
    except (RuleError, SettingsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    read, wrong = _read(files, rules)
    for fault in wrong:
        typer.echo(fault, err=True)
    failures = [failure for file in read for failure in failing(file, tuple(WAYS) if every_way else ("plain",))]
    for failure in failures:
        typer.echo(f"{failure.place}: FAILED: {failure.about}" + _how(failure.way))
        typer.echo("".join(f"    {line}\n" for line in failure.difference.split("\n")), nl=False)
    for warning in warnings(read):
        typer.echo(f"warning: {warning}")
    played = sum(len(file.cases) for file in read)
    typer.echo(f"{played - len({(one.place, one.about) for one in failures})} of {played} cases passed"
               + (f"; {len(wrong)} files cannot be read" if wrong else ""))  # fmt: skip
    if failures or wrong or not played:
        raise typer.Exit(1)


def failing(file: CaseFile, ways: Sequence[Way]) -> Iterator[Failure]:
    """Cases of a file that come out otherwise, and known faults that are none any more."""
    for case in file.cases:
        place = f"{file.name}:{case.spot.line}:{case.spot.column}"
        for way in ways:
            if way not in case.ways:
                continue
            found = difference(case, way)
            if way in case.known_faults:
                found = "" if found else f"! it passes: take 'known_fault: {{{way}: ...}}' away"
            if found:
                yield Failure(place, case.about, way, found)


def warnings(files: Iterable[CaseFile]) -> list[str]:
    """Rules in force that no case makes fire, or that no case keeps quiet. Other rules of a case need neither."""
    every: dict[str, None] = {}
    raised: set[str] = set()
    quiet: set[str] = set()
    for file in files:
        for case in file.cases:
            every |= dict.fromkeys(rule.id for rule in case.book)
            raised |= {line_of(line).rule_id for line in case.expect if line_of(line).effect == "raise"}
            quiet |= set(case.quiet) | (set() if case.expect else _only_rule(case))
    silent = [f"no case makes {rule_id} fire" for rule_id in every if rule_id not in raised]
    return silent + [
        f"no case keeps {rule_id} quiet ('quiet: [{rule_id}]')" for rule_id in every if rule_id not in quiet
    ]


def export_incident(
    incident: Annotated[int, typer.Argument(help="number of the incident")],
    data: Annotated[Path | None, typer.Option(help="data folder")] = None,
    minutes: Annotated[int, typer.Option(min=0, max=1440, help="of data before and after it")] = 10,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="without the ids of site and device, and orders")
    ] = False,
) -> None:
    """Writes what was said around an incident as a test case, with what the rules make of it today as its outcome.

    The service may not be running: the embedded databases belong to one process at a time.
    """
    try:
        typer.echo(_exported(incident, data, minutes, anonymous=anonymous), nl=False)
    except TizhuangError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _exported(incident_id: int, data: Path | None, minutes: int, *, anonymous: bool) -> str:
    settings = load(data={"dir": data})
    url = address(settings.database.url, settings.data.dir)
    if not settings.database.url and not (settings.data.dir / "records.sqlite").exists():
        raise DataFolderError(f"there are no records in {settings.data.dir}; name the data folder with --data")
    with ExitStack() as opened:
        records = opened.enter_context(closing(open_records(url)))
        history = opened.enter_context(open_history(settings))
        incident = Incidents(records).get(incident_id)
        registry = Registry(records)
        story = Story.around(incident, minutes * 60_000)
        zones = {site.id: site.zone for site in registry.sites()}
        devices = {one.id: one for one in registry.devices(site_id=incident.device_id.partition(".")[0])}
        ids = list(devices) if story.of_site else [incident.device_id]
        said = list(history.history(story.start, story.end, device_ids=ids))
        return as_case(
            story,
            {one: (devices[one].kind, devices[one].statics) for one in ids},
            zones.get(incident.device_id.partition(".")[0]),
            said,
            settings.alerts.rules,
            anonymous=anonymous,
        )


def _found(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not inside:
            raise RuleError(f"no test cases (*.yaml) in {path}")
        found += inside
    return found


def _read(files: Iterable[Path], rules: Path | None) -> tuple[list[CaseFile], list[str]]:
    read, wrong = [], []
    for path in files:
        try:
            read.append(load_cases(path, rules))
        except RuleError as error:
            wrong.append(str(error))
    return read, wrong


def _only_rule(case: Case) -> set[str]:
    """With one rule in force, nothing to expect says that it is the one that stays quiet."""
    return {rule.id for rule in case.book} if len(case.book) == 1 else set()


def _how(way: Way) -> str:
    return "" if way == "plain" else f" ({WAYS[way]})"
