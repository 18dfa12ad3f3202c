"""What `tizhuang doctor` finds: one record per check, the exit code they add up to, and how they are printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from core.incident import Words


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    LOST = "lost"
    """Something would be lost, or nobody would come."""
    UNKNOWN = "unknown"
    """Could not be seen; `found` says why."""


class Finding(NamedTuple):
    """What one check found, with its figures, and what mends it: words of the broker or database, or our settings."""

    check: str
    level: Level
    found: str
    mend: str = ""


TITLES: Final = {
    "broker.reach": Words("消息服务器", "broker"),
    "broker.tls": Words("传输加密", "encryption"),
    "broker.read": Words("订阅权限", "right to listen"),
    "broker.probe": Words("探测主题", "probe topic"),
    "broker.size": Words("报文大小", "message size"),
    "broker.retained": Words("保留消息", "retained messages"),
    "broker.will": Words("遗嘱消息", "last will"),
    "broker.session": Words("持久会话", "session"),
    "broker.queue": Words("离线队列", "queue while away"),
    "broker.in_flight": Words("在途消息", "messages in flight"),
    "broker.restart": Words("重启后保留", "broker restart"),
    "broker.alerts": Words("告警发布", "announcing alerts"),
    "broker.intruder": Words("匿名访问", "strangers"),
    "broker.own": Words("自身权限", "our own rights"),
    "data.folder": Words("数据目录", "data folder"),
    "data.disk": Words("磁盘空间", "disk and spool"),
    "data.records": Words("业务数据库", "records"),
    "series.duckdb": Words("时序文件", "series file"),
    "series.reach": Words("时序数据库", "InfluxDB"),
    "series.databases": Words("库与建库权限", "databases"),
    "series.rights": Words("读写权限", "write and read"),
    "series.retention": Words("保留期限", "retention"),
    "series.clock": Words("时序库时钟", "clock of InfluxDB"),
    "devices.clock": Words("设备时钟", "clocks of devices"),
    "host.clock": Words("本机时钟", "clock of this machine"),
}
"""What is checked, in the order of the table."""

NEEDED: Final = frozenset({"broker.reach", "broker.probe"})
"""Where these could not be seen, hardly anything could."""

NOTHING_LOST, SOMETHING_LOST, NOT_CHECKED = 0, 1, 2
"""Exit codes."""

_SYMBOL: Final = {Level.OK: "✓", Level.WARNING: "!", Level.LOST: "✗", Level.UNKNOWN: "?"}
_TITLE_WIDTH: Final = max(len(en) + 2 * len(zh) for zh, en in TITLES.values()) + 3


def exit_code(findings: Sequence[Finding]) -> int:
    """0: nothing would be lost, 1: something would, 2: it could not be checked."""
    if any(one.level is Level.UNKNOWN and one.check in NEEDED for one in findings):
        return NOT_CHECKED
    return SOMETHING_LOST if any(one.level is Level.LOST for one in findings) else NOTHING_LOST


def summary(findings: Sequence[Finding]) -> str:
    """One sentence."""
    count = {level: sum(one.level is level for one in findings) for level in Level}
    rest = f"{_many(count[Level.WARNING], 'warning')}, {count[Level.UNKNOWN]} unknown, {count[Level.OK]} ok"
    code = exit_code(findings)
    if code == NOT_CHECKED:
        return f"The broker could not be checked ({rest})."
    if code == SOMETHING_LOST:
        return f"Something would be lost: {_many(count[Level.LOST], 'finding')} to mend ({rest})."
    return f"Nothing that was seen would be lost ({rest})."


def lines(finding: Finding) -> Iterator[str]:
    """A finding as it stands in the table: one line, and one more for what mends it."""
    words = TITLES[finding.check]
    title = f"{words.zh} {words.en}"
    yield f"{_SYMBOL[finding.level]} {title}{' ' * (_TITLE_WIDTH - _width(title))}{finding.found}"
    if finding.mend:
        yield f"{' ' * (_TITLE_WIDTH + 2)}→ {finding.mend}"


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "exit_code": exit_code(findings),
        "summary": summary(findings),
        "findings": [one._asdict() | {"title": TITLES[one.check]._asdict()} for one in findings],
    }


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
