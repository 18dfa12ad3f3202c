"""The retrofitted lift on the wire.

Names follow GB/T 24476 clauses 9 and 10 (DOMAIN section 2); the fields below `door_cycles` are vendors' extras.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.fields import MAX_COUNT, Wire, field

ServiceMode = Literal[
    "stopped", "normal", "inspection", "fire_return", "fireman", "emergency_power", "earthquake", "unknown"
]


class ElevatorTelemetry(Wire):
    """One snapshot of a lift. Every field but `ts` may be missing: report by exception."""

    ts: int = Field(description="device time, Unix milliseconds")
    seq: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="grows by one per message; recognises redelivery"
    )

    service_mode: ServiceMode | None = field("服务模式", "service mode")
    moving: bool | None = field("运行中", "moving")
    direction: Literal["none", "up", "down"] | None = field("运行方向", "direction")
    door: Literal["closed", "open", "opening", "closing"] | None = field("轿门", "car door")
    door_zone: bool | None = field("在开锁区", "in door zone")
    floor: int | None = field("物理楼层", "physical floor", ge=1, le=200)
    floor_label: str | None = field("楼层显示", "floor shown", max_length=4)
    occupied: bool | None = field("轿厢有人", "person in car")
    trips: int | None = field("运行次数", "trips", ge=0, le=MAX_COUNT)
    run_hours: float | None = field("运行小时", "running hours", unit="h", ge=0)
    door_cycles: int | None = field("开关门次数", "door cycles", ge=0, le=MAX_COUNT)
    speed_mps: float | None = field("速度", "speed", unit="m/s", ge=0, le=20)
    load_kg: float | None = field("载荷", "load", unit="kg", ge=0, le=10_000)
    levelling_mm: float | None = field("平层误差", "levelling error", unit="mm", ge=-5_000, le=5_000)
    vibration_x_mg: float | None = field("振动 X", "vibration x", unit="mg", ge=-16_000, le=16_000)
    vibration_y_mg: float | None = field("振动 Y", "vibration y", unit="mg", ge=-16_000, le=16_000)
    vibration_z_mg: float | None = field("振动 Z", "vibration z", unit="mg", ge=-16_000, le=16_000)
    noise_db: float | None = field("噪声", "noise", unit="dB", ge=0, le=200)
    motor_temp_c: float | None = field("电机温度", "motor temperature", unit="°C", ge=-65, le=400)
    shaft_temp_c: float | None = field("井道温度", "shaft temperature", unit="°C", ge=-65, le=200)
    mains: bool | None = field("主电源", "mains present")
    battery_pct: float | None = field("备用电池", "battery", unit="%", ge=0, le=100)
    signal_pct: float | None = field("信号强度", "signal", unit="%", ge=0, le=100)
    brake: Literal["applied", "released"] | None = field("制动器", "brake")
    safety_circuit: Literal["closed", "open"] | None = field("安全回路", "safety circuit")
    door_lock_circuit: Literal["closed", "open"] | None = field("门锁回路", "door lock circuit")
