"""The e-bike charging pile on the wire: the pile itself and its ports (DOMAIN section 4)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from core.fields import MAX_COUNT, Wire, field

PortState = Literal["idle", "charging", "plugged", "full", "floating", "fault"]
MAX_PORTS = 64


class PortTelemetry(Wire):
    """One port. Readings of it carry the port number as their part."""

    port: int = Field(ge=1, le=MAX_PORTS, description="counts from 1")

    state: PortState | None = field("状态", "state")
    power_w: float | None = field("功率", "power", unit="W", ge=0, le=20_000)
    current_a: float | None = field("电流", "current", unit="A", ge=0, le=100)
    voltage_v: float | None = field("电压", "voltage", unit="V", ge=0, le=1_000)
    energy_kwh: float | None = field("电量", "energy", unit="kWh", ge=0, le=1_000)
    duration_s: int | None = field("充电时长", "charging time", unit="s", ge=0, le=604_800)
    temp_c: float | None = field("端口温度", "port temperature", unit="°C", ge=-65, le=400)
    ambient_c: float | None = field("环境温度", "ambient temperature", unit="°C", ge=-65, le=200)
    order: str | None = field("订单号", "charging session", max_length=64)


class ChargerTelemetry(Wire):
    """One snapshot of a pile. Every field but `ts` may be missing, ports too: report by exception."""

    ts: int = Field(description="device time, Unix milliseconds")
    seq: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="grows by one per message; recognises redelivery"
    )
    ports: Annotated[tuple[PortTelemetry, ...], Field(max_length=MAX_PORTS)] = Field(
        default=(), description="the ports that have something to report, each at most once"
    )

    voltage_v: float | None = field("电压", "voltage", unit="V", ge=0, le=1_000)
    ambient_c: float | None = field("环境温度", "ambient temperature", unit="°C", ge=-65, le=200)
    leakage_ma: float | None = field("漏电流", "leakage current", unit="mA", ge=0, le=10_000)
    mains: bool | None = field("主电源", "mains present")
    signal_pct: float | None = field("信号强度", "signal", unit="%", ge=0, le=100)
