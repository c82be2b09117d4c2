"""/metrics: the counters of the gateway in the text format of Prometheus, read at the moment of the scrape.

Nothing here is touched on the data path. Every metric is declared once in `METRICS`; `docs/metrics.md` is compared
with that table by a test. Names follow the conventions of Prometheus: base units, `_total` on counters.
"""

import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.view import AlarmView, BrokerView, DeviceView, MachineView, RingView, Snapshot
from edge.web.gateway import Histogram, Stats
from plant.instant import NS_PER_S

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PRIORITIES: Final = ("critical", "high", "medium", "low")

Labelled = Iterable[tuple[tuple[str, ...], float]]
Values = Callable[[Snapshot, Stats], Labelled | Histogram]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One family. kind: "counter", "gauge" or "histogram". values: its samples as ((label values), value)."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    values: Values


def _one(value: float) -> Labelled:
    return [((), float(value))]


def _devices(value: Callable[[DeviceView], float]) -> Values:
    return lambda snapshot, _: [((d.name,), float(value(d))) for d in snapshot.devices]


def _machines(value: Callable[[MachineView], float | None]) -> Values:
    def values(snapshot: Snapshot, _: Stats) -> Iterator[tuple[tuple[str, ...], float]]:
        for machine in snapshot.machines:
            figure = value(machine)
            if figure is not None:
                yield (machine.name,), float(figure)

    return values


def _ring(value: Callable[[RingView], float]) -> Values:
    return lambda snapshot, _: _one(value(snapshot.ring))


def _broker(value: Callable[[BrokerView], float]) -> Values:
    return lambda snapshot, _: _one(value(snapshot.broker))


def _gateway(value: Callable[[Snapshot, Stats], float]) -> Values:
    return lambda snapshot, stats: _one(value(snapshot, stats))


def _alarms_by(key: Callable[[AlarmView], tuple[str, ...]]) -> Values:
    def values(snapshot: Snapshot, _: Stats) -> Labelled:
        counts: dict[tuple[str, ...], float] = {}
        for alarm in snapshot.alarms:
            counts[key(alarm)] = counts.get(key(alarm), 0.0) + 1.0
        return sorted(counts.items())

    return values


def _active_alarms(snapshot: Snapshot, _: Stats) -> Labelled:
    """Count what stands per priority; the usual ones are there at zero too, so that rules can use them."""
    counts = dict.fromkeys(PRIORITIES, 0.0)
    for alarm in snapshot.alarms:
        if alarm.active and alarm.annunciated:
            counts[alarm.priority] = counts.get(alarm.priority, 0.0) + 1.0
    return [((priority,), count) for priority, count in counts.items()]


def _machine_states(snapshot: Snapshot, _: Stats) -> Labelled:
    return [((m.name, m.state), 1.0) for m in snapshot.machines]


def rss_bytes() -> int:
    """Return the resident memory of this process, 0 where /proc does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def open_files() -> int:
    """Return the number of open file descriptors of this process, 0 where /proc does not tell."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
    except OSError:
        return 0


def cpu_seconds() -> float:
    """Return user and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _build_info(snapshot: Snapshot, stats: Stats) -> Labelled:
    return [((snapshot.gateway, snapshot.version, stats.revision), 1.0)]


METRICS: Final = (
    MetricSpec("andon_build_info", "gauge", ("gateway", "version", "revision"), "Always 1; the labels say what runs.",
               _build_info),
    MetricSpec("andon_start_time_seconds", "gauge", (), "When the gateway started, seconds since 1970 UTC.",
               _gateway(lambda s, _: s.started / NS_PER_S)),
    MetricSpec("andon_healthy", "gauge", (), "1 while data flows, the same judgement as /healthz.",
               _gateway(lambda s, _: s.healthy)),
    MetricSpec("andon_tags", "gauge", (), "Tags in the configuration.", _gateway(lambda s, _: s.tags)),
    MetricSpec("andon_tags_alive", "gauge", (), "Tags that arrive as often as they should.",
               _gateway(lambda s, _: s.tags_alive)),
    MetricSpec("andon_readings_total", "counter", ("source",), "Readings received, by source.",
               lambda s, _: [((d.name,), float(d.readings)) for d in s.devices]),
    MetricSpec("andon_readings_dropped_total", "counter", ("reason",), "Readings lost on the way, by reason.",
               lambda _, stats: [((reason,), float(n)) for reason, n in sorted(stats.dropped.items())]),
    MetricSpec("andon_events_total", "counter", ("kind",), "Events kept in the journal, by kind.",
               lambda _, stats: [((kind,), float(n)) for kind, n in sorted(stats.events.items())]),
    MetricSpec("andon_step_duration_seconds", "histogram", (), "Time of one step of the line.",
               lambda _, stats: stats.steps),
    MetricSpec("andon_inbox_readings", "gauge", (), "Readings that wait for the line.",
               _gateway(lambda _, stats: stats.inbox_readings)),
    MetricSpec("andon_inbox_limit_readings", "gauge", (), "Readings that the inbox has room for.",
               _gateway(lambda _, stats: stats.inbox_readings_max)),
    MetricSpec("andon_event_loop_lag_seconds", "gauge", (), "How late the event loop last was.",
               _gateway(lambda _, stats: stats.loop_lag_s)),
    MetricSpec("andon_device_up", "gauge", ("device", "type"), "1 while the device is connected.",
               lambda s, _: [((d.name, d.type), float(d.state == "connected")) for d in s.devices]),
    MetricSpec("andon_device_tags", "gauge", ("device",), "Tags read from the device.", _devices(lambda d: d.tags)),
    MetricSpec("andon_device_tags_alive", "gauge", ("device",), "Tags of the device that arrive as they should.",
               _devices(lambda d: d.alive)),
    MetricSpec("andon_device_problems", "gauge", ("device",), "Tags of the device that have a problem of their own.",
               _devices(lambda d: len(d.problems))),
    MetricSpec("andon_device_reconnects_total", "counter", ("device",), "Times the device was connected again.",
               _devices(lambda d: d.reconnects)),
    MetricSpec("andon_device_readings_lost_total", "counter", ("device",),
               "Readings that the device is known to have lost (overflow of its queues).", _devices(lambda d: d.lost)),
    MetricSpec("andon_ring_up", "gauge", (), "1 while the ring takes readings.", _ring(lambda r: r.state != "down")),
    MetricSpec("andon_ring_files", "gauge", (), "Files in the ring.", _ring(lambda r: r.files)),
    MetricSpec("andon_ring_rows", "gauge", (), "Readings in the ring.", _ring(lambda r: r.rows)),
    MetricSpec("andon_ring_size_bytes", "gauge", (), "Size of the ring on disk.", _ring(lambda r: r.bytes)),
    MetricSpec("andon_ring_limit_bytes", "gauge", (), "Size beyond which the oldest readings go.",
               _ring(lambda r: r.bytes_max)),
    MetricSpec("andon_ring_committed_readings_total", "counter", (), "Readings committed to the ring.",
               _ring(lambda r: r.committed)),
    MetricSpec("andon_ring_dropped_readings_total", "counter", (), "Readings that the ring could not keep.",
               _ring(lambda r: r.dropped)),
    MetricSpec("andon_ring_commit_duration_seconds", "histogram", (), "Time of one commit of the ring.",
               lambda _, stats: stats.commits),
    MetricSpec("andon_mqtt_up", "gauge", (), "1 while the broker is connected.",
               _broker(lambda b: b.state == "connected")),
    MetricSpec("andon_mqtt_published_total", "counter", (), "Messages handed to the broker.",
               _broker(lambda b: b.published)),
    MetricSpec("andon_mqtt_dropped_total", "counter", (), "Live values that newer ones replaced unsent.",
               _broker(lambda b: b.dropped)),
    MetricSpec("andon_mqtt_unacknowledged_events", "gauge", (), "Events that the broker has not acknowledged yet.",
               _broker(lambda b: b.unacknowledged)),
    MetricSpec("andon_alarms", "gauge", ("priority", "state"), "Alarms that are not normal, by ISA-18.2 state letter.",
               _alarms_by(lambda a: (a.priority, a.state))),
    MetricSpec("andon_alarms_active", "gauge", ("priority",), "Alarms that are active and annunciated.",
               _active_alarms),
    MetricSpec("andon_machine_state", "gauge", ("machine", "state"), "1 for the state that the machine is in.",
               _machine_states),
    MetricSpec("andon_machine_oee_ratio", "gauge", ("machine",), "OEE of the current shift so far, 0 to 1.",
               _machines(lambda m: m.oee)),
    MetricSpec("andon_machine_availability_ratio", "gauge", ("machine",), "Availability of the current shift so far.",
               _machines(lambda m: m.availability)),
    MetricSpec("andon_machine_performance_ratio", "gauge", ("machine",),
               "Performance of the current shift so far; above 1 the ideal cycle is wrong.",
               _machines(lambda m: m.performance)),
    MetricSpec("andon_machine_quality_ratio", "gauge", ("machine",), "Quality of the current shift so far.",
               _machines(lambda m: m.quality)),
    MetricSpec("andon_machine_target_oee_ratio", "gauge", ("machine",), "OEE that the machine should reach.",
               _machines(lambda m: m.target_oee)),
    MetricSpec("andon_machine_shift_produced_parts", "gauge", ("machine",), "Parts of the current shift, good and bad.",
               _machines(lambda m: m.produced)),
    MetricSpec("andon_machine_shift_rejected_parts", "gauge", ("machine",), "Rejected parts of the current shift.",
               _machines(lambda m: m.rejected)),
    MetricSpec("andon_process_cpu_seconds_total", "counter", (), "CPU time of the gateway, all threads.",
               lambda _s, _t: _one(cpu_seconds())),
    MetricSpec("andon_process_resident_memory_bytes", "gauge", (), "Resident memory of the gateway.",
               lambda _s, _t: _one(rss_bytes())),
    MetricSpec("andon_process_open_fds", "gauge", (), "Open file descriptors of the gateway.",
               lambda _s, _t: _one(open_files())),
)  # fmt: skip
"""In the order of the data flow: the gateway, its line, devices, ring, broker, alarms, machines, process."""


def family(spec: MetricSpec, snapshot: Snapshot, stats: Stats) -> Metric:
    """Return the samples of one metric."""
    values = spec.values(snapshot, stats)
    if isinstance(values, Histogram):
        histogram = HistogramMetricFamily(spec.name, spec.help)
        buckets, total = [], 0
        for bound, count in zip((*map(str, values.bounds), "+Inf"), values.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        histogram.add_metric([], buckets, values.sum)
        return histogram
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    metric = kind(spec.name, spec.help, labels=spec.labels)
    for labels, value in values:
        metric.add_metric(labels, value)
    return metric


class _Scrape(Collector):
    """One scrape: all families from one snapshot, so that they agree with each other."""

    def __init__(self, snapshot: Snapshot, stats: Stats) -> None:
        self.snapshot = snapshot
        self.stats = stats

    def collect(self) -> Iterator[Metric]:
        return (family(spec, self.snapshot, self.stats) for spec in METRICS)


def render(snapshot: Snapshot, stats: Stats) -> bytes:
    """Return the answer to a scrape, in CONTENT_TYPE."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(snapshot, stats))
    return generate_latest(registry)
