"""Devices: which sources run, each under its supervisor; started, stopped and changed one by one."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.config import Config, DeviceOptions, TagRow, points
from edge.line import Inbox
from edge.sources import Source
from edge.sources.modbus import ModbusOptions, ModbusSource
from edge.sources.mqtt import MqttSource, MqttSourceOptions
from edge.sources.opcua import OpcuaOptions, OpcuaSource
from edge.sources.replay import ReplayOptions, ReplaySource
from edge.sources.sparkplug import SparkplugSource, SparkplugSourceOptions
from edge.sources.supervisor import Backoff, Supervisor
from edge.tick import Condition
from edge.view import DeviceView
from plant.texts import Texts

DEADLINE_S = 60.0
BACKOFF = Backoff(cap_s=10.0)
"""A machine that comes back is read again within this time, however long it was away."""


def make_source(
    options: DeviceOptions,
    rows: tuple[TagRow, ...],
    index: Mapping[str, int],
    texts: Texts,
    state_dir: Path,
    namespaces: Mapping[int, str],
) -> Source:
    """Build the source of one device. Nothing is opened. namespaces: OPC UA's, as they were at first contact."""
    read = points(options, rows, index)
    match options:
        case OpcuaOptions():
            options = options.model_copy(update={"pki_dir": state_dir / options.pki_dir})
            return OpcuaSource(options, read, texts, namespaces=namespaces)  # type: ignore[arg-type]
        case ModbusOptions():
            return ModbusSource(options, read, texts)  # type: ignore[arg-type]
        case MqttSourceOptions():
            return MqttSource(options, read, texts)  # type: ignore[arg-type]
        case SparkplugSourceOptions():
            return SparkplugSource(options, read, texts)  # type: ignore[arg-type]
        case ReplayOptions():
            return ReplaySource(options, read, texts)  # type: ignore[arg-type]


class Device:
    """One device as configured, and the task that keeps it connected."""

    def __init__(
        self, options: DeviceOptions, rows: tuple[TagRow, ...], source: Source, supervisor: Supervisor
    ) -> None:
        self.options = options
        self.rows = rows
        self.source = source
        self.supervisor = supervisor
        self.task: asyncio.Task[None] | None = None

    def same_as(self, options: DeviceOptions, rows: tuple[TagRow, ...]) -> bool:
        """Tell whether a configuration asks for the very connection and points that run."""
        return options == self.options and [_wire(r) for r in rows] == [_wire(r) for r in self.rows]

    def view(self, alive: NDArray[np.bool_]) -> DeviceView:
        status = self.supervisor.status
        return DeviceView(
            name=self.options.name,
            type=self.options.type,
            state=status.state,
            since=status.since,
            sentence=status.sentence,
            tags=len(self.source.tags),
            alive=int(np.count_nonzero(alive[self.source.tags])),
            readings=status.readings,
            lost=status.lost,
            reconnects=status.reconnects,
            problems=dict(status.problems),
        )


def _wire(row: TagRow) -> tuple[object, ...]:
    """What of a row reaches the device; scale, limits and names belong to the line."""
    deadband = row.deadband / abs(row.scale) if row.deadband > 0 else 0.0
    return (row.tag, row.address, row.type, row.order, row.period_ms, deadband)


class Devices:
    """Every device by name."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        inbox: Inbox,
        texts: Texts,
        state_dir: Path,
        namespaces: Mapping[str, Mapping[str, str]],
    ) -> None:
        """namespaces: what an earlier run's `namespaces()` returned."""
        self._remembered = namespaces
        self._group = group
        self._inbox = inbox
        self._texts = texts
        self._state_dir = state_dir
        self.by_name: dict[str, Device] = {}

    async def use(self, config: Config, index: Mapping[str, int]) -> list[str]:
        """Start, stop and restart devices so that they are as configured; what did not change is not touched.

        Returns what was changed, in words.
        """
        changed: list[str] = []
        wanted = {options.name: options for options in config.file.device}
        for name in [name for name in self.by_name if name not in wanted]:
            await self._stop(name)
            changed.append(f"device {name} removed")
        for name, options in wanted.items():
            rows = config.rows_of(name)
            running = self.by_name.get(name)
            if running is not None and running.same_as(options, rows):
                running.rows = rows
                continue
            if running is not None:
                await self._stop(name)
            self._start(options, rows, index)
            changed.append(f"device {name} {'restarted' if running else 'started'}")
        return changed

    def namespaces(self) -> dict[str, dict[str, str]]:
        """Return per OPC UA device the URI that each namespace index had at first contact, to be kept for ever."""
        known = {name: dict(uris) for name, uris in self._remembered.items()}
        for name, device in self.by_name.items():
            if isinstance(device.source, OpcuaSource) and device.source.first_contact:
                known[name] = {str(index): uri for index, uri in device.source.first_contact.items()}
        return known

    async def stop(self) -> None:
        """Close every device, together."""
        tasks = [device.task for device in self.by_name.values() if device.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, options: DeviceOptions, rows: tuple[TagRow, ...], index: Mapping[str, int]) -> None:
        namespaces = {int(i): uri for i, uri in self._remembered.get(options.name, {}).items()}
        source = make_source(options, rows, index, self._texts, self._state_dir, namespaces)
        supervisor = Supervisor(
            source,
            tags={index[row.tag]: row.tag for row in rows},
            put=self._inbox.put,
            put_history=self._inbox.history,
            signal=self._inbox.signal,
            asset=options.asset,
            # A source that knows how slow it may be says so; None = it may be silent for as long as it likes.
            deadline_s=getattr(source, "deadline_s", DEADLINE_S),
            lost_reason=getattr(source, "lost_reason", "queue_overflow"),
            backoff=BACKOFF,
        )
        device = Device(options, rows, source, supervisor)
        device.task = self._group.create_task(supervisor.run(), name=f"device {options.name}")
        self.by_name[options.name] = device

    async def _stop(self, name: str) -> None:
        self._remembered = self.namespaces()
        device = self.by_name.pop(name)
        if device.task is not None:
            device.task.cancel()
            await asyncio.wait([device.task])
        for alarm in ("communication", "no_data", "silent", "clock", "certificate"):
            self._inbox.signal(
                Condition(alarm=f"device.{name}.{alarm}", active=False, message=f"device {name} was removed or changed")
            )
