"""The state table alone: every pair of state and step, against the standard's table written out a second time."""

import itertools

import pytest

from edge.alarms.table import Core, State, Step, core_of, follow

# ISA-18.2-2016: from, step, to. Written as the standard draws it, not as the product stores it.
ORDINARY = {
    ("A", "activate"): "B",
    ("B", "acknowledge"): "C",
    ("B", "clear"): "D",
    ("C", "clear"): "A",
    ("D", "acknowledge"): "A",
    ("D", "activate"): "B",
    ("B", "rearm"): "B",
    ("C", "rearm"): "B",
}
LATCHING = {
    ("A", "activate"): "B",
    ("B", "acknowledge"): "C",
    ("B", "clear"): "E",
    ("C", "clear"): "F",
    ("E", "acknowledge"): "F",
    ("F", "reset"): "A",
    ("E", "activate"): "B",
    ("F", "activate"): "B",
    ("B", "rearm"): "B",
    ("C", "rearm"): "B",
}
FLAG_STEPS = {
    "shelve": ("shelved", False),
    "unshelve": ("shelved", True),
    "suppress": ("suppressed", False),
    "unsuppress": ("suppressed", True),
    "out_of_service": ("out_of_service", False),
    "in_service": ("out_of_service", True),
}
# Letter: active, acknowledged, latched for a latching alarm.
BOOLEANS = {
    "A": (False, True, False),
    "B": (True, False, True),
    "C": (True, True, True),
    "D": (False, False, False),
    "E": (False, False, True),
    "F": (False, True, True),
}
ALL = [
    State(core=core, latching=latching, shelved=g, suppressed=h, out_of_service=i)
    for core, latching, g, h, i in itertools.product(Core, (False, True), (False, True), (False, True), (False, True))
    if core.value in ("ABC" + ("EF" if latching else "D"))
]


def test_ALM_1_every_pair_of_state_and_step_is_as_in_the_standard_and_no_other():
    assert len(ALL) == (4 + 5) * 8
    for state, step in itertools.product(ALL, Step):
        after = follow(state, step)
        flags = {name: getattr(state, name) for name in ("shelved", "suppressed", "out_of_service")}
        if step.value in FLAG_STEPS:
            name, before = FLAG_STEPS[step.value]
            if flags[name] is before:
                assert after is not None
                assert (after.core, after.latching) == (state.core, state.latching)
                flags[name] = not before
                assert {n: getattr(after, n) for n in flags} == flags
            else:
                assert after is None
            continue
        expected = (LATCHING if state.latching else ORDINARY).get((state.core.value, step.value))
        assert (after.core.value if after else None) == expected, (state, step)
        if after:
            assert after.latching is state.latching
            assert {n: getattr(after, n) for n in flags} == flags


def test_the_booleans_of_part_9_follow_from_the_letter():
    for state in ALL:
        active, acknowledged, latched = BOOLEANS[state.core.value]
        assert (state.active, state.acknowledged) == (active, acknowledged)
        assert state.latched is (latched and state.latching)


def test_a_flag_hides_the_core_in_the_order_out_of_service_suppressed_shelved():
    for state in ALL:
        expected = (
            "I" if state.out_of_service else "H" if state.suppressed else "G" if state.shelved else state.core.value
        )
        assert state.letter == expected
        assert state.annunciated is (expected not in "GHI")
        assert state.normal is (expected == "A")


@pytest.mark.parametrize("state", ALL, ids=str)
def test_a_state_is_found_again_from_its_booleans(state: State):
    core = core_of(active=state.active, acknowledged=state.acknowledged, latched=state.latched, latching=state.latching)
    assert core is state.core


def test_a_changed_type_never_loses_what_nobody_acknowledged_and_never_gets_stuck():
    for state in ALL:
        other = not state.latching
        core = core_of(active=state.active, acknowledged=state.acknowledged, latched=state.latched, latching=other)
        after = State(core=core, latching=other)
        assert (after.active, after.acknowledged) == (state.active, state.acknowledged)
        ways_out = [step for step in Step if follow(after, step) and step.value not in FLAG_STEPS]
        assert ways_out
