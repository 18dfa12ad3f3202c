"""After a start: the samples that windows look at are read back from the series store.

Until that is done, a window of a device that was known before is unknown, which changes nothing. Samples that come
meanwhile are kept as ever; what is read back is put in its place among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from alerts.buckets import BucketTrack
from alerts.condition import Series
from alerts.memory import ALL, LONG, NOTHING, Device, Scope
from core.reading import Event, Reading
from storage.series import Bucket


class Wanted(NamedTuple):
    """A question to the roll-ups: one field of one part, [start, end) in steps of the series."""

    kind: str
    device_id: str
    part: str
    field: str
    start: int
    end: int
    series: Series


class Rehearsal:
    """Goes through stored readings, oldest first, as the engine would have, but decides nothing."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        """`devices`: the engine's, by id. Those that are known by now wait for their samples."""
        self._devices = devices
        self._doubles: dict[str, Device] = {}
        for device in devices.values():
            device.waiting = ALL if device.pack.series else NOTHING

    def begin(self) -> None:
        """From the oldest again."""
        self._doubles.clear()

    def take(self, items: Iterable[Reading | Event]) -> None:
        """Some more of what was stored, in order of device time."""
        for item in items:
            device = self._devices.get(item.device_id)
            if device is None or not device.waiting or device.kind != item.kind:
                continue
            double = self._double(device)
            part = double.part(item.part)
            part.tracks = device.part(item.part).tracks
            if isinstance(item, Event):
                part.take_event(item)
                names = None
            else:
                changed, reported = part.take(item.fields, item.ts)
                part.keep_samples(reported, item.fields, item.ts)
                names = (*changed, *reported)
            part.count(names, Scope(part, item.ts))

    def long_windows(self, now: int) -> Iterator[Wanted]:
        """What must be asked of the roll-ups, for windows of more than ten minutes."""
        for device in list(self._devices.values()):
            for part in list(device.parts.values()) if device.waiting else ():
                for field in list(part.values):
                    for one in device.pack.series.get(field, ()):
                        if one.step_ms:
                            start = (now - one.keep_ms) // one.step_ms * one.step_ms
                            yield Wanted(device.kind, device.id, part.name, field, start, now, one)

    def put(self, wanted: Wanted, buckets: Sequence[Bucket]) -> None:
        """The answer. Text, and true or false, is not rolled up: such windows begin anew."""
        device = self._devices.get(wanted.device_id)
        if device is None or device.kind != wanted.kind:
            return
        track = device.part(wanted.part).track(wanted.series)
        assert isinstance(track, BucketTrack)
        for one in buckets:
            if one.mean is not None and one.minimum is not None and one.maximum is not None:
                last = float(one.last)
                track.restore(one.start, one.points, one.mean, one.minimum, one.maximum, last, wanted.end)

    def short_windows_are_known(self) -> None:
        """From now on; those of more than ten minutes still wait."""
        for device in self._devices.values():
            device.waiting = min(device.waiting, LONG)

    def end(self) -> None:
        """All was read: every window is known from now on."""
        for device in self._devices.values():
            device.waiting = NOTHING
        self._doubles.clear()

    def _double(self, device: Device) -> Device:
        """The device as it was then. Only the tracks are those of now."""
        found = self._doubles.get(device.id)
        if found is None:
            found = Device(device.id, device.kind, device.pack, device.zone, device.statics)
            found.part("")
            self._doubles[device.id] = found
        return found
