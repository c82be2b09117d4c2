"""One alarm: its present state and everything that a transition tells of it."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge.alarms.rules import SEVERITY, AlarmRule, sentence
from edge.alarms.table import State, core_of
from edge.view import AlarmView
from plant.events import AlarmTransition
from plant.instant import Instant
from plant.tags import Tag

SYSTEM: Final = "system"
"""The word in `condition` for alarms that the gateway raises about itself."""
FLAG_NOTES: Final = ("shelve", "suppress", "out_of_service")
"""Keys in a transition's data that say who set the flag and why."""


def state_after(last: AlarmTransition, *, latching: bool) -> State:
    """Return the state in which a transition left an alarm whose type is `latching` now."""
    core = core_of(active=last.active, acknowledged=last.acknowledged, latched=last.latched, latching=latching)
    return State(
        core=core,
        latching=latching,
        shelved=last.shelved,
        suppressed=last.suppressed,
        out_of_service=last.out_of_service,
    )


@dataclass(slots=True, kw_only=True)
class Entry:
    """One alarm.

    activated: ns UTC; activated_monotonic: the same on the monotonic clock, for durations.
    pending: value and source time of the reading that started a delay. recent: activations within the chatter window,
    monotonic ns. flags: who set which flag and why. details: what a part of the gateway said of its alarm.
    """

    name: str
    asset: str = ""
    priority: str = "medium"
    condition: str = SYSTEM
    tag: str = ""
    limit: float | None = None
    message: str = ""
    static: Mapping[str, Any] = field(default_factory=dict)
    rule: AlarmRule | None = None
    index: int = -1
    state: State = field(default_factory=State)
    occurrence: str = ""
    value: float | None = None
    source_time: int = 0
    activated: int = 0
    activated_monotonic: int = 0
    shelved_until: int = 0
    one_shot: bool = False
    suppressed_by: str = ""
    flags: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    pending: tuple[float, int] = (math.nan, 0)
    recent: deque[int] = field(default_factory=deque)
    chattering: bool = False
    fleeting: bool = False
    first_in_group: bool | None = None
    rearms: int = 0
    last: AlarmTransition | None = None

    def configure(self, rule: AlarmRule, index: int, tag: Tag) -> None:
        """Take everything that does not change with the state from a rule."""
        self.rule = rule
        self.index = index
        self.asset = rule.asset or tag.asset
        self.priority = rule.priority
        self.condition = rule.condition
        self.tag = rule.tag
        self.limit = rule.limit if math.isfinite(rule.limit) else None
        self.message = rule.message or sentence(rule, tag.unit)
        static: dict[str, Any] = {"severity": SEVERITY[rule.priority]}
        for name in ("cause", "consequence", "action", "respond_within_s", "group"):
            if getattr(rule, name):
                static[name] = getattr(rule, name)
        self.static = static

    def data(self) -> dict[str, Any]:
        """Return what explains the state further: guidance for the operator, who set which flag and why, counts."""
        data = {**self.static, **self.details, **self.flags}
        if self.activated:
            data["activated"] = self.activated
        if self.source_time:
            data["source_time"] = self.source_time
        if self.chattering:
            data["chattering"] = True
        if self.fleeting:
            data["fleeting"] = True
        if self.rearms:
            data["rearms"] = self.rearms
        if self.first_in_group is not None:
            data["first_in_group"] = self.first_in_group
        return data

    def remember(self, last: AlarmTransition, now: Instant) -> None:
        """Take what the last transition before a restart knew, except the state itself."""
        data = last.data
        self.last = last
        self.occurrence = last.occurrence
        self.value = last.value
        self.activated = int(data.get("activated", last.time if last.occurrence else 0))
        self.activated_monotonic = now.monotonic - max(0, now.utc - self.activated)
        self.source_time = int(data.get("source_time", 0))
        self.first_in_group = data.get("first_in_group")
        self.rearms = int(data.get("rearms", 0))
        self.flags = {name: dict(data[name]) for name in FLAG_NOTES if isinstance(data.get(name), Mapping)}
        if last.suppressed:
            self.suppressed_by = str(self.flags.get("suppress", {}).get("by", "command"))

    def transition(self, event_id: str, transition: str, now: Instant, user: str, comment: str) -> AlarmTransition:
        """Return the event for a step that was just taken."""
        state = self.state
        return AlarmTransition(
            id=event_id,
            time=now.utc,
            asset=self.asset,
            alarm=self.name,
            occurrence=self.occurrence,
            transition=str(transition),
            state=state.letter,
            active=state.active,
            acknowledged=state.acknowledged,
            latched=state.latched,
            shelved=state.shelved,
            suppressed=state.suppressed,
            out_of_service=state.out_of_service,
            annunciated=state.annunciated,
            priority=self.priority,
            condition=self.condition,
            tag=self.tag,
            value=self.value,
            limit=self.limit,
            message=self.message,
            user=user,
            comment=comment,
            shelved_until=self.shelved_until,
            data=self.data(),
        )

    def view(self) -> AlarmView:
        """Return what is shown of the alarm."""
        return AlarmView(
            alarm=self.name,
            asset=self.asset,
            priority=self.priority,
            state=self.state.letter,
            active=self.state.active,
            acknowledged=self.state.acknowledged,
            annunciated=self.state.annunciated,
            shelved_until=self.shelved_until,
            occurrence=self.occurrence,
            since=self.activated or (self.last.time if self.last is not None else 0),
            tag=self.tag,
            value=self.value,
            limit=self.limit,
            message=self.message,
        )
