"""What the running gateway says of itself, as findings."""

from collections.abc import Mapping, Sequence
from typing import Final

from edge.doctor.finding import Finding, State
from edge.terminal import size, span
from edge.view import AlarmView, DeviceView, Snapshot
from plant.instant import NS_PER_S

TAGS_SHOWN_MAX: Final = 5
STARTING_S: Final = 60
"""A device that is connecting for no longer than this needs nobody yet."""
CLOCK_BACK_S: Final = 60
_REMEDY: Final = {
    "down": "check its power, network and address; the gateway asks again by itself",
    "refused": "check its user, certificate and permissions (`andon cert list`); the gateway asks again once a minute",
}


def of_snapshot(snapshot: Snapshot, now: int) -> list[Finding]:
    """Return a finding for the gateway, each device, the broker, the disk and the clock. now: ns UTC, ours."""
    told = [alarm for alarm in snapshot.alarms if alarm.active]
    findings = [_gateway(snapshot)]
    findings += [_device(device, told, snapshot.time) for device in snapshot.devices]
    findings += [_broker(snapshot), _disk(snapshot), *_storage(told)]
    if snapshot.ring.newest > now + CLOCK_BACK_S * NS_PER_S:
        findings.append(clock_back(snapshot.ring.newest, now))
    return findings


def clock_back(newest: int, now: int) -> Finding:
    """The clock shows an earlier time than what is stored already."""
    return Finding(
        kind="clock",
        name="stored",
        state="act",
        sentence=f"The clock is {span((newest - now) / NS_PER_S)} behind the newest stored reading: it was set back, "
        "or was wrong before.",
        next_step="set the clock; what is stored keeps its times",
    )


def _gateway(snapshot: Snapshot) -> Finding:
    up = span((snapshot.time - snapshot.started) / NS_PER_S)
    rate = f"{snapshot.readings_per_s:,.0f} readings/s, {snapshot.tags_alive} of {snapshot.tags} tags alive"
    return Finding(
        kind="gateway",
        name=snapshot.gateway,
        state="ok" if snapshot.healthy else "act",
        since=snapshot.started,
        sentence=f"Gateway {snapshot.gateway} {snapshot.version} has been running for {up}: {rate}.",
        cause="" if snapshot.healthy else snapshot.sentence,
        next_step="" if snapshot.healthy else "see the devices and the disk below; the log is `journalctl -u andon`",
    )


def _device(device: DeviceView, alarms: Sequence[AlarmView], now: int) -> Finding:
    for_s = (now - device.since) / NS_PER_S
    tags = f"{device.alive} of {device.tags} tags have a value"
    if device.state == "connecting" and for_s <= STARTING_S and not device.sentence:
        return _about(device, "note", f"Device {device.name} is being connected.")
    if device.state != "connected":
        sentence = device.sentence or f"Device {device.name} is {device.state}."
        return _about(device, "act", sentence, next_step=_REMEDY.get(device.state, _REMEDY["down"]))
    own = [
        alarm.message
        for alarm in alarms
        if alarm.alarm in {f"device.{device.name}.{what}" for what in ("silent", "clock", "certificate")}
    ]
    head = f"Device {device.name} is connected; {tags}"
    if device.problems:
        return _about(
            device,
            "act",
            f"{head}, {len(device.problems)} have a problem.",
            list_problems(device.problems),
            next_for(device.type),
            own,
        )
    if own:
        return _about(device, "act", f"{head}.", own[0], "", own[1:])
    if not device.tags:
        return _about(device, "note", f"Device {device.name} is connected, but no row of tags.csv reads from it.")
    if not device.alive:
        return _about(
            device, "act", f"{head}.", "no value has come, or all of them are bad or old",
            "check that the device runs and its values change",
        )  # fmt: skip
    more = f" {device.sentence}" if device.sentence else ""
    lost = f", {device.lost:,} readings were lost" if device.lost else ""
    again = f", reconnected {device.reconnects} times" if device.reconnects else ""
    return _about(device, "note" if more else "ok", f"{head}{again}{lost}.{more}")


def _about(
    device: DeviceView, state: State, sentence: str, cause: str = "", next_step: str = "", more: Sequence[str] = ()
) -> Finding:
    causes = "; ".join(part for part in (cause, *more) if part)
    return Finding(
        kind="device", name=device.name, state=state, since=device.since, sentence=sentence, cause=causes,
        next_step=next_step,
    )  # fmt: skip


def list_problems(problems: Mapping[str, str]) -> str:
    """Return the problems of tags in one sentence; tags with the same one stand together."""
    by_reason: dict[str, list[str]] = {}
    for tag, why in sorted(problems.items()):
        by_reason.setdefault(why, []).append(tag)
    parts = []
    for why, tags in list(by_reason.items())[:TAGS_SHOWN_MAX]:
        shown = ", ".join(tags[:TAGS_SHOWN_MAX])
        more = f" and {len(tags) - TAGS_SHOWN_MAX} more" if len(tags) > TAGS_SHOWN_MAX else ""
        parts.append(f"{shown}{more}: {why}")
    rest = len(by_reason) - len(parts)
    return "; ".join(parts) + (f"; and {rest} more reasons" if rest > 0 else "")


def next_for(kind: str) -> str:
    """Return what to do about tags that have a problem."""
    tool = {
        "opcua": "; `andon browse` shows what the server has",
        "modbus": "; `andon probe` shows what the device answers",
    }
    return f"correct these rows of tags.csv, or the device{tool.get(kind, '')}"


def _broker(snapshot: Snapshot) -> Finding:
    broker = snapshot.broker
    waiting = f", {broker.unacknowledged:,} events wait to be acknowledged" if broker.unacknowledged else ""
    if broker.state == "off":
        return Finding(kind="broker", state="note", sentence="No broker: [mqtt] is switched off.")
    if broker.state == "connected":
        sentence = f"The broker {broker.address} takes what is published ({broker.published:,} messages{waiting})."
        return Finding(kind="broker", name=broker.address, state="ok", sentence=sentence)
    return Finding(
        kind="broker",
        name=broker.address,
        state="act",
        sentence=f"The broker {broker.address} is not connected{waiting}; events are kept for it.",
        cause=broker.sentence,
        next_step="check user, password and access rules at the broker"
        if broker.state == "refused"
        else "check that the broker runs and is reached; the gateway asks again by itself",
    )


def _disk(snapshot: Snapshot) -> Finding:
    ring = snapshot.ring
    held = f"The ring holds {ring.rows:,} readings in {size(ring.bytes)} of {size(ring.bytes_max)}"
    lost = f"; {ring.dropped:,} readings were dropped before they could be stored" if ring.dropped else ""
    if ring.state == "ok":
        full = ""
        if ring.full_at > snapshot.time:
            full = f"; full in {span((ring.full_at - snapshot.time) / NS_PER_S)}, then the oldest go"
        return Finding(kind="disk", name="ring", state="ok", sentence=f"{held}{full}{lost}.")
    return Finding(
        kind="disk",
        name="ring",
        state="act",
        sentence=f"{held}{lost}; storage is {ring.state}.",
        cause=ring.sentence,
        next_step="make room on the disk, or look at the disk itself (`dmesg`)",
    )


def _storage(alarms: Sequence[AlarmView]) -> list[Finding]:
    """Return the troubles of storage that the ring's own sentence does not tell."""
    told = [alarm for alarm in alarms if alarm.alarm.startswith("storage.") and alarm.alarm != "storage.ring"]
    return [
        Finding(
            kind="journal" if alarm.alarm in {"storage.journal", "storage.backup"} else "disk",
            name=alarm.alarm.removeprefix("storage."),
            state="act",
            since=alarm.since,
            sentence=alarm.message,
        )
        for alarm in told
    ]
