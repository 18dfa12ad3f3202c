"""The fault catalogue, and the versioned code tables that lead from a vendor's code to a fault (DOMAIN 3 and 4.1).

A fault has one name in the whole product; a table says which code means it. Codes that a table does not know pass as
unknown events: they are stored and shown, never an error.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Severity(StrEnum):
    """How fast somebody must move (DOMAIN section 5). Sorts by urgency: P0 first."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"


class KnownFault(NamedTuple):
    """One entry of the catalogue."""

    name: str
    kind: str
    zh: str
    en: str
    severity: Severity | None
    """Default severity; None: information only."""


class CodeTable(NamedTuple):
    """Codes of one protocol or platform, at one version."""

    name: str
    version: str
    source: str
    codes: dict[str, str]


def _lift(name: str, zh: str, en: str, severity: Severity | None) -> KnownFault:
    return KnownFault(name, "elevator", zh, en, severity)


def _pile(name: str, zh: str, en: str, severity: Severity | None) -> KnownFault:
    return KnownFault(name, "charger", zh, en, severity)


_P0, _P1, _P2, _P3 = Severity.P0, Severity.P1, Severity.P2, Severity.P3

FAULTS: Final = {
    fault.name: fault
    for fault in (
        _lift("safety_circuit_open", "安全回路断路", "safety circuit open while running", _P1),
        _lift("door_closing_fault", "关门故障", "door closing fault", _P2),
        _lift("door_opening_fault", "开门故障", "door opening fault", _P2),
        _lift("stopped_outside_door_zone", "非平层停梯", "stopped outside the door zone", _P2),
        _lift("unintended_car_movement", "轿厢意外移动", "unintended car movement", _P1),
        _lift("run_time_limit", "运转时间限制", "motor run-time limit", _P1),
        _lift("position_lost", "楼层位置丢失", "floor position lost", _P2),
        _lift("anti_restart", "防止再运行", "anti-restart", _P2),
        _lift("overtravel_top", "冲顶", "overtravel at the top", _P1),
        _lift("overtravel_bottom", "蹲底", "overtravel at the bottom", _P1),
        _lift("entrapment", "困人", "entrapment", _P0),
        _lift("overspeed", "超速", "overspeed", _P1),
        _lift("door_open_moving", "开门走车", "moving with the door open", _P1),
        _lift("repeated_door", "反复开关门", "repeated door opening", _P3),
        _lift("ebike_in_car", "电动车进轿厢", "e-bike in the car", _P1),
        _lift("back_to_automatic", "恢复自动运行", "back to automatic", None),
        _lift("mains_lost", "主电源断电", "mains lost", _P2),
        _lift("out_of_service", "停止服务", "out of service", None),
        _lift("inspection_mode", "检修运行", "inspection", None),
        _lift("fire_return", "消防返回", "fire return", None),
        _lift("fireman_mode", "消防员运行", "fireman operation", None),
        _lift("emergency_power", "应急电源运行", "emergency power", None),
        _lift("earthquake_mode", "地震模式", "earthquake mode", None),
        _lift("alarm_button", "报警按钮", "alarm button", _P0),
        _lift("controller_fault", "控制器故障", "controller fault", _P2),
        _lift("drive_fault", "驱动或电机故障", "drive or motor fault", _P2),
        _lift("governor_safety_gear", "限速器安全钳动作", "governor or safety gear", _P1),
        _lift("shaft_device_fault", "井道设备故障", "shaft device fault", _P2),
        _lift("power_supply_fault", "电源故障", "power supply fault", _P2),
        _lift("call_button_stuck", "呼梯按钮卡住", "call button stuck", _P3),
        _lift("start_failure", "启动失败", "start failure", _P2),
        _lift("controller_supply_fault", "控制器电源故障", "controller supply fault", _P2),
        _lift("self_test_failed", "自检失败", "self test failed", _P2),
        _lift("drive_temperature", "驱动过热", "drive too hot", _P2),
        _lift("load_measurement_fault", "称重故障", "load measurement fault", _P3),
        _pile("pile_mains_lost", "充电桩断电", "pile mains lost", _P2),
        _pile("water", "进水", "water", _P1),
        _pile("fuse_melted", "保险丝熔断", "fuse melted", _P1),
        _pile("smoke", "烟雾", "smoke", _P0),
        _pile("heat", "高温", "heat", _P0),
        _pile("water_level", "水位", "water level", _P2),
        _pile("cabinet_door", "柜门打开", "cabinet door open", _P3),
        _pile("meter_fault", "计量故障", "meter fault", _P3),
        _pile("memory_fault", "存储故障", "memory fault", _P3),
        _pile("socket_spring_stuck", "插座弹片卡住", "socket spring stuck", _P3),
        _pile("bad_contact", "接触不良或保险丝断", "bad contact or fuse", _P3),
        _pile("relay_welded", "继电器粘连", "relay welded", _P1),
        _pile("plug_sensor", "插头检测故障", "plug sensor fault", _P3),
        _pile("relay_or_fuse", "继电器或保险丝故障", "relay or fuse fault", _P3),
        _pile("load_short", "负载短路", "load short circuit", _P1),
        _pile("card_reader", "刷卡器故障", "card reader fault", _P3),
        _pile("detection_circuit", "检测电路故障", "detection circuit fault", _P3),
        _pile("overload", "过载", "overload", _P1),
        _pile("over_current", "过流", "over-current", _P1),
        _pile("over_temperature", "过热", "over-temperature", _P1),
        _pile("fire_system", "消防联动停止", "stopped by the fire system", _P0),
        _pile("over_voltage", "过压", "over-voltage", _P2),
        _pile("under_voltage", "欠压", "under-voltage", _P2),
        _pile("leakage", "漏电", "leakage", _P1),
    )
}

_GBT24476: Final = {
    "1": "safety_circuit_open",
    "2": "door_closing_fault",
    "3": "door_opening_fault",
    "4": "stopped_outside_door_zone",
    "5": "unintended_car_movement",
    "6": "run_time_limit",
    "7": "position_lost",
    "8": "anti_restart",
    "40": "back_to_automatic",
    "41": "mains_lost",
    "42": "out_of_service",
    "43": "inspection_mode",
    "44": "fire_return",
    "45": "fireman_mode",
    "46": "emergency_power",
    "47": "earthquake_mode",
    "90": "alarm_button",
}
"""The codes on which all platforms agree."""

TABLES: Final = {
    table.name: table
    for table in (
        CodeTable(
            "gbt24476",
            "2017",
            "GB/T 24476 fault codes as published excerpts give them; 9-11 by common platforms",
            {**_GBT24476, "9": "overtravel_top", "10": "overtravel_bottom", "11": "entrapment"},
        ),
        CodeTable(
            "gbt24476-91",
            "2017",
            "as gbt24476, on platforms that number overtravel bottom, top and entrapment 91 to 93",
            {**_GBT24476, "91": "overtravel_bottom", "92": "overtravel_top", "93": "entrapment"},
        ),
        CodeTable(
            "bacnet-lift",
            "135-2016",
            "numbers of the BACnet lift fault enumeration",
            {
                "0": "controller_fault",
                "1": "drive_fault",
                "2": "governor_safety_gear",
                "3": "shaft_device_fault",
                "4": "power_supply_fault",
                "5": "safety_circuit_open",
                "6": "door_closing_fault",
                "7": "door_opening_fault",
                "8": "stopped_outside_door_zone",
                "9": "call_button_stuck",
                "10": "start_failure",
                "11": "controller_supply_fault",
                "12": "self_test_failed",
                "13": "run_time_limit",
                "14": "position_lost",
                "15": "drive_temperature",
                "16": "load_measurement_fault",
            },
        ),
        CodeTable(
            "dny",
            "8.6",
            "DNY/AP3000 protocol: alarm-N is command 0x42, port-N a port state, stop-N a stop reason (all decimal)",
            {
                "alarm-1": "pile_mains_lost",
                "alarm-2": "water",
                "alarm-3": "fuse_melted",
                "alarm-4": "smoke",
                "alarm-5": "heat",
                "alarm-6": "water_level",
                "alarm-7": "cabinet_door",
                "port-4": "meter_fault",
                "port-6": "memory_fault",
                "port-7": "socket_spring_stuck",
                "port-8": "bad_contact",
                "port-9": "relay_welded",
                "port-10": "plug_sensor",
                "port-11": "relay_or_fuse",
                "port-13": "load_short",
                "port-14": "relay_welded",
                "port-15": "card_reader",
                "port-16": "detection_circuit",
                "stop-6": "overload",
                "stop-8": "overload",
                "stop-10": "over_temperature",
                "stop-11": "over_temperature",
                "stop-12": "over_current",
                "stop-15": "relay_or_fuse",
                "stop-16": "water",
                "stop-17": "fire_system",
                "stop-18": "fire_system",
                "stop-20": "cabinet_door",
                "stop-24": "fire_system",
                "stop-25": "memory_fault",
                "stop-26": "over_voltage",
                "stop-27": "under_voltage",
            },
        ),
        CodeTable(
            "ocpp-16",
            "1.6",
            "error codes of OCPP 1.6 that name a fault of ours; the others are stored as unknown",
            {
                "GroundFailure": "leakage",
                "HighTemperature": "over_temperature",
                "OverCurrentFailure": "over_current",
                "OverVoltage": "over_voltage",
                "PowerMeterFailure": "meter_fault",
                "PowerSwitchFailure": "relay_or_fuse",
                "ReaderFailure": "card_reader",
                "UnderVoltage": "under_voltage",
            },
        ),
        *(
            CodeTable(
                f"names-{kind}",
                "1",
                "our own names, for gateways that know what a vendor's code means",
                {name: name for name, fault in FAULTS.items() if fault.kind == kind},
            )
            for kind in ("elevator", "charger")
        ),
    )
}


def meaning(table: str, code: str, kind: str) -> str | None:
    """The fault's name, or None for a code, table or kind that does not fit."""
    known = TABLES.get(table)
    name = known.codes.get(code) if known else None
    return name if name and FAULTS[name].kind == kind else None
