"""A small plant for the tests of alarms: tags, a clock that tests move, and short ways to say things."""

from collections.abc import Iterable
from typing import Any

from edge.alarms import AlarmOptions, AlarmRule, Alarms
from edge.tick import Command, Condition, Reply
from plant.batch import BAD, EMPTY, GOOD, UNCERTAIN, Batch, of_rows
from plant.events import AlarmTransition, Event, EventIds
from plant.instant import NS_PER_S, Instant
from plant.tags import Tag, TagTable

START_UTC = 1_790_000_000 * NS_PER_S
TABLE = TagTable(
    [
        Tag(name="cnc.temperature", index=0, asset="milling/line1/cnc", device="cnc", unit="Cel"),
        Tag(name="cnc.vibration", index=1, asset="milling/line1/cnc", device="cnc", unit="mm/s"),
        Tag(name="cnc.state", index=2, asset="milling/line1/cnc", device="cnc"),
        Tag(name="press.setpoint", index=3, asset="pressing/line2/press", device="press"),
        Tag(name="press.pressure", index=5, asset="pressing/line2/press", device="press", stale_after_ns=5 * NS_PER_S),
        Tag(name="cnc.oee", index=6, asset="milling/line1/cnc", unit="1", virtual=True),
    ]
)
HOT = AlarmRule(name="cnc.hot", tag="cnc.temperature", condition="HH", limit=80.0, priority="critical")


class Plant:
    """Alarms with a clock. `restart` is kill -9 and a new start from the log."""

    def __init__(
        self, *rules: AlarmRule, table: TagTable = TABLE, options: AlarmOptions | None = None, **settings: Any
    ) -> None:
        self.rules = rules
        self.table = table
        self.options = options or AlarmOptions(**settings)
        self.monotonic = 1000 * NS_PER_S
        self.utc = START_UTC
        self.log: list[Event] = []
        self.boot = 0
        self.commands = 0
        self.alarms = Alarms(rules, table, EventIds("boot0"), self.options)

    @property
    def now(self) -> Instant:
        return Instant(self.utc, self.monotonic)

    def wait(self, seconds: float) -> None:
        self.monotonic += round(seconds * NS_PER_S)
        self.utc += round(seconds * NS_PER_S)

    def step(self, *rows: tuple[str, float] | tuple[str, float, int]) -> list[Event]:
        """Evaluate a batch of (tag, value[, quality]) rows at the present moment."""
        batch = of_rows([(self.table[r[0]].index, self.utc, r[1], r[2] if len(r) > 2 else GOOD) for r in rows])
        return self._keep(self.alarms.evaluate(batch, self.now))

    def batch(self, batch: Batch) -> list[Event]:
        return self._keep(self.alarms.evaluate(batch, self.now))

    def idle(self, seconds: float = 0.0) -> list[Event]:
        self.wait(seconds)
        return self._keep(self.alarms.evaluate(EMPTY, self.now))

    def condition(self, alarm: str, *, active: bool, message: str = "", **data: Any) -> list[Event]:
        return self._keep(
            self.alarms.condition(Condition(alarm=alarm, active=active, message=message, data=data), self.now)
        )

    def command(self, name: str, command_id: str = "", user: str = "anna", **arguments: Any) -> Reply:
        self.commands += 1
        command = Command(
            id=command_id or f"c{self.commands}", name=name, user=user, origin="mqtt", arguments=arguments
        )
        reply, events = self.alarms.command(command, self.now)
        self._keep(events)
        return reply

    def acknowledge(self, alarm: str, user: str = "anna") -> Reply:
        return self.command("acknowledge", alarm=alarm, occurrence=self.last(alarm).occurrence, user=user)

    def last(self, alarm: str) -> AlarmTransition:
        return [t for t in self.transitions() if t.alarm == alarm][-1]

    def state(self, alarm: str) -> str:
        return next((view.state for view in self.alarms.views(self.now) if view.alarm == alarm), "A")

    def transitions(self, events: Iterable[Event] | None = None) -> list[AlarmTransition]:
        return [e for e in (self.log if events is None else events) if isinstance(e, AlarmTransition)]

    def told(self, events: Iterable[Event]) -> list[str]:
        """Return "alarm transition" of each transition."""
        return [f"{t.alarm} {t.transition}" for t in self.transitions(events)]

    def restart(self, *rules: AlarmRule, down_s: float = 1.0, step_utc_s: float = 0.0) -> None:
        """Start anew from the log; the monotonic clock begins somewhere else, the wall clock may have been set."""
        self.wait(down_s)
        self.utc += round(step_utc_s * NS_PER_S)
        self.monotonic = 7 * NS_PER_S
        self.boot += 1
        self.rules = rules or self.rules
        self.alarms = Alarms(self.rules, self.table, EventIds(f"boot{self.boot}"), self.options)
        self.alarms.restore(self.transitions(), self.now)

    def _keep(self, events: tuple[Event, ...]) -> list[Event]:
        self.log.extend(events)
        return list(events)


__all__ = ["BAD", "GOOD", "HOT", "TABLE", "UNCERTAIN", "AlarmRule", "Plant"]
