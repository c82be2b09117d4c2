"""The whole of `Alarms` as a state machine: readings, people, time and restarts in any order, against a model that
knows only what an operator would expect.
"""

from alarms_plant import AlarmRule, Plant
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

ALARM = "cnc.hot"


class Machine(RuleBasedStateMachine):
    """The model: four Booleans for the core, three flags, the occurrences seen, and when a shelf ends."""

    @initialize(latch=st.booleans())
    def begin(self, latch: bool) -> None:
        self.plant = Plant(
            AlarmRule(name=ALARM, tag="cnc.temperature", condition="H", limit=80.0, latch=latch),
            max_shelve_s=100,
            flood_start_count=1000,
        )
        self.latch = latch
        self.active = False
        self.unacknowledged = False
        self.latched = False
        self.shelf_ends = 0
        self.one_shot = False
        self.suppressed = False
        self.out = False
        self.occurrences: list[str] = []

    def _letter(self) -> str:
        if self.out:
            return "I"
        if self.suppressed:
            return "H"
        if self.shelf_ends:
            return "G"
        if self.active:
            return "B" if self.unacknowledged else "C"
        if self.latched:
            return "E" if self.unacknowledged else "F"
        return "D" if self.unacknowledged else "A"

    @rule()
    def too_hot(self) -> None:
        told = self.plant.told(self.plant.step(("cnc.temperature", 90.0)))
        if self.active:
            assert told == []
            return
        assert told == [f"{ALARM} activate"]
        occurrence = self.plant.last(ALARM).occurrence
        assert occurrence not in self.occurrences
        self.occurrences.append(occurrence)
        self.active = self.unacknowledged = True
        self.latched = self.latch

    @rule()
    def cool_again(self) -> None:
        told = self.plant.told(self.plant.step(("cnc.temperature", 20.0)))
        expected = []
        if self.active:
            expected.append(f"{ALARM} clear")
            if self.shelf_ends and self.one_shot:
                expected.append(f"{ALARM} unshelve")
                self.shelf_ends = 0
            self.active = False
        assert told == expected

    @rule()
    def doubtful_value(self) -> None:
        assert self.plant.step(("cnc.temperature", 20.0 if self.active else 90.0, 64)) == []

    @rule()
    def acknowledge(self) -> None:
        if not self.occurrences:
            return
        reply = self.plant.command("acknowledge", alarm=ALARM, occurrence=self.occurrences[-1])
        assert reply.code == ("ok" if self.unacknowledged else "already_acknowledged")
        self.unacknowledged = False

    @precondition(lambda self: len(getattr(self, "occurrences", ())) > 1)
    @rule(data=st.data())
    def acknowledge_what_is_past(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.occurrences[:-1]))
        assert self.plant.command("acknowledge", alarm=ALARM, occurrence=old).code == "stale_occurrence"

    @rule()
    def reset(self) -> None:
        possible = self.latched and not self.active and not self.unacknowledged
        assert self.plant.command("reset", alarm=ALARM).ok is possible
        if possible:
            self.latched = False

    @rule(one_shot=st.booleans(), seconds=st.integers(1, 100))
    def shelve(self, one_shot: bool, seconds: int) -> None:
        reply = self.plant.command("shelve", alarm=ALARM, reason="works on it", duration_s=seconds, one_shot=one_shot)
        assert reply.ok is (not self.shelf_ends)
        if reply.ok:
            self.shelf_ends = self.plant.utc + seconds * 1_000_000_000
            self.one_shot = one_shot

    @rule()
    def unshelve(self) -> None:
        assert self.plant.command("unshelve", alarm=ALARM).ok is bool(self.shelf_ends)
        self.shelf_ends = 0

    @rule(on=st.booleans())
    def suppress(self, on: bool) -> None:
        reply = self.plant.command("suppress" if on else "unsuppress", alarm=ALARM, reason="start-up")
        assert reply.ok is (self.suppressed is not on)
        self.suppressed = on

    @rule(out=st.booleans())
    def service(self, out: bool) -> None:
        reply = self.plant.command("out_of_service" if out else "in_service", alarm=ALARM, comment="repair")
        assert reply.ok is (self.out is not out)
        self.out = out

    @rule(seconds=st.integers(1, 120))
    def time_passes(self, seconds: int) -> None:
        told = self.plant.told(self.plant.idle(seconds))
        if self.shelf_ends and self.plant.utc >= self.shelf_ends:
            assert f"{ALARM} unshelve" in told
            self.shelf_ends = 0
        else:
            assert f"{ALARM} unshelve" not in told

    @rule(seconds=st.integers(1, 120))
    def power_cut(self, seconds: int) -> None:
        self.plant.restart(down_s=seconds)
        told = self.plant.told(self.plant.idle())
        expired = bool(self.shelf_ends) and self.plant.utc >= self.shelf_ends
        assert told == ([f"{ALARM} unshelve"] if expired else [])
        if expired:
            self.shelf_ends = 0

    @invariant()
    def the_state_is_what_the_operator_expects(self) -> None:
        if not hasattr(self, "plant"):
            return
        assert self.plant.state(ALARM) == self._letter()
        shown = {t.alarm: t for t in self.plant.alarms.snapshot(self.plant.now)}
        if self._letter() == "A":
            assert ALARM not in shown
            return
        state = shown[ALARM]
        assert state == self.plant.last(ALARM)
        assert (state.active, state.acknowledged, state.latched) == (
            self.active, not self.unacknowledged, self.latched,
        )  # fmt: skip
        assert (state.shelved, state.suppressed, state.out_of_service) == (
            bool(self.shelf_ends), self.suppressed, self.out,
        )  # fmt: skip
        assert state.annunciated is not (state.shelved or state.suppressed or state.out_of_service)


TestAlarmsAsAStateMachine = Machine.TestCase
TestAlarmsAsAStateMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
