"""Commands about rules, `tizhuang rules ...`: each in a function of its own, only registered here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from alerts.cli_backtest import backtest_rules
from alerts.cli_test import export_incident, play_cases
from alerts.rulebook import RuleBook, load_rules
from core.errors import RuleError, SettingsError
from core.settings import load

rules_app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check rule files.")


@rules_app.callback()
def _group() -> None:
    """Check rule files."""  # without it, typer makes the only command the whole program


@rules_app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="of rule files; without it, the one of the settings")] = None,
) -> None:
    """Reads all rule files of a folder and lists the rules, or everything that is wrong with them (exit code 1)."""
    try:
        book = load_rules(folder if folder is not None else load().alerts.rules)
    except (RuleError, SettingsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    rows = [("rule", "kind", "severity", "for", "parameters", "overrides", "file"), *_rows(book)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo(f"ok: {len(book.sources)} rules in {len(book.files)} files")


rules_app.command("test")(play_cases)
rules_app.command("export")(export_incident)
rules_app.command("backtest")(backtest_rules)


def _rows(book: RuleBook) -> Iterator[tuple[str, ...]]:
    """All rules, with the steps of a ladder in the line of their rule. Never cut short: scripts read it as well."""
    for source in book.sources:
        rules = [rule for rule in book.rules if rule.id.partition(".")[0] == source.rule_id]
        yield (
            source.rule_id,
            source.kind,
            " ".join(rule.finding.severity for rule in rules) or "disabled",
            next((_written(rule.silence_ms or rule.for_ms) for rule in rules), "-"),
            str(source.parameters),
            str(source.overrides),
            f"{source.file}:{source.line}",
        )


def _written(duration_ms: int) -> str:
    """`90s`, `5m`, `1h`, as people write it; `-` for at once."""
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if duration_ms and duration_ms % size_ms == 0:
            return f"{duration_ms // size_ms}{unit}"
    return f"{duration_ms}ms" if duration_ms else "-"
