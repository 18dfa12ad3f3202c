"""Addresses in topics: there and back, and every topic that is refused names the level."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import topics
from core.errors import BadPayload
from core.topics import Address

IDS = st.from_regex(topics.ID_PATTERN.removesuffix("$"), fullmatch=True)
ADDRESSES = st.builds(Address, IDS, IDS, IDS, st.sampled_from(topics.CHANNELS))


@given(ADDRESSES, st.sampled_from(["", "p/07/", "a/b/c/", "风荷苑/"]))
def test_there_and_back(address: Address, prefix: str):
    topic = address.topic(prefix)
    assert topics.parse(topic) == address
    assert topics.split_device_id(address.device_id) == (address.site, address.device)
    assert matches(topics.subscription(prefix), topic)
    assert not matches(topics.subscription(prefix), topics.alert_topic(address.site, 17, prefix))


@given(ADDRESSES, ADDRESSES)
def test_two_devices_never_share_a_key(one: Address, other: Address):
    assert (one.device_id == other.device_id) == ((one.site, one.device) == (other.site, other.device))


@given(st.text(max_size=80) | st.from_regex(r"(p/)?tizhuang/v1(/[a-zA-Z0-9.+-]{0,3}){0,6}", fullmatch=True))
def test_any_topic_is_an_address_or_refused(topic: str):
    try:
        address = topics.parse(topic)
    except BadPayload as error:
        assert all(fault.field == "topic" or fault.field.startswith("topic.") for fault in error.faults)  # noqa: PT017
    else:
        assert topic.endswith(address.topic())


@pytest.mark.parametrize(
    ("topic", "fields"),
    [
        ("", ["topic"]),
        ("tizhuang/v1", ["topic"]),
        ("tizhuang/v1/s/elevator/d", ["topic"]),
        ("tizhuang/v1/s/elevator/d/telemetry/", ["topic"]),
        ("/tizhuang/v1/s/elevator/d/telemetry/x", ["topic"]),
        ("xtizhuang/v1/s/elevator/d/telemetry", ["topic"]),
        ("tizhuang/v1/S/elevator/d/telemetry", ["topic.site"]),
        ("tizhuang/v1/s/Elevator/d/telemetry", ["topic.kind"]),
        ("tizhuang/v1/s/elevator/d.1/telemetry", ["topic.device"]),
        ("tizhuang/v1/s/elevator/d\n/telemetry", ["topic.device"]),
        ("tizhuang/v1/s/elevator/d/telemetry\n", ["topic.channel"]),
        ("tizhuang/v1/s/elevator/-d/telemetry", ["topic.device"]),
        ("tizhuang/v1/s/elevator/٣/telemetry", ["topic.device"]),
        ("tizhuang/v1/s/elevator//telemetry", ["topic.device"]),
        ("tizhuang/v1/S/E/D/T", ["topic.site", "topic.kind", "topic.device", "topic.channel"]),
        ("tizhuang/v1/s/elevator/d/command", ["topic.channel"]),
        ("tizhuang/v1/s/elevator/d/reply", ["topic.channel"]),
        ("tizhuang/v1/s/elevator/d/alerts", ["topic.channel"]),
    ],
)
def test_refused(topic: str, fields: list[str]):
    with pytest.raises(BadPayload) as caught:
        topics.parse(topic)
    assert [fault.field for fault in caught.value.faults] == fields


def test_a_leading_slash_is_an_empty_prefix():
    assert topics.parse("/tizhuang/v1/s/elevator/d/status").device_id == "s.d"


def matches(subscription: str, topic: str) -> bool:
    """MQTT's own rule for filters, `+` and a `#` at the end."""
    wanted, given_levels = subscription.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        given_levels = given_levels[: max(len(wanted), 0)] if len(given_levels) >= len(wanted) else given_levels
    return len(wanted) == len(given_levels) and all(
        level in {"+", found} for level, found in zip(wanted, given_levels, strict=True)
    )


@pytest.mark.parametrize(
    ("topic", "asked_for"),
    [
        ("tizhuang/v1/s/elevator/d/telemetry", True),
        ("tizhuang/v1/s/elevator/d/telemetry/too/deep", True),
        ("tizhuang/v1/s/elevator/d", False),
        ("tizhuang/v1/s/alerts/17", False),
        ("tizhuang/v2/s/elevator/d/telemetry", False),
    ],
)
def test_what_a_worker_asks_for(topic: str, asked_for: bool):
    assert matches(topics.subscription(), topic) is asked_for
