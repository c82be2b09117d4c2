from hypothesis import given
from hypothesis import strategies as st

from edge.outlets.topics import Topics, level

TOPICS = Topics("plants/eu", "Acme", "Ulm #1", "box/1")

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(NAMES)
def test_a_name_is_one_level_without_wildcards(name: str) -> None:
    encoded = level(name)
    assert encoded
    assert not set(encoded) & set("+#/\x00")
    assert not encoded.startswith("$")


@given(NAMES, NAMES)
def test_different_names_have_different_levels(one: str, other: str) -> None:
    assert (level(one) == level(other)) == (one == other)


@given(st.sampled_from(["+", "#", "/", "%", "$", "_gateway", "alarm", "event", "value", "", "a"]), NAMES)
def test_assets_and_alarms_never_share_a_topic(asset: str, alarm: str) -> None:
    path = "/".join(part for part in ("area", asset) if part)
    assert TOPICS.alarm(path, alarm) != TOPICS.event(path)
    assert TOPICS.alarm(path, alarm) != TOPICS.alarm("area", alarm) or path == "area"


def test_topics_follow_the_isa_95_path() -> None:
    assert (
        TOPICS.alarm("press/line2/cell+", "temp/high")
        == "plants/eu/Acme/Ulm %231/press/line2/cell%2B/alarm/temp%2Fhigh"
    )
    assert TOPICS.event("") == "plants/eu/Acme/Ulm %231/_gateway/box%2F1/event"
    assert TOPICS.value("press") == "plants/eu/Acme/Ulm %231/press/value"


def test_an_asset_with_a_reserved_name_keeps_out_of_the_way() -> None:
    assert TOPICS.event("_gateway/box%2F1") != TOPICS.event("")
    assert TOPICS.event("area/alarm") != TOPICS.alarm("area", "event")


def test_answers_go_anywhere_but_into_the_enterprises_own_topics() -> None:
    assert TOPICS.may_answer_at("clients/42/answers")
    assert TOPICS.may_answer_at(TOPICS.reply)
    assert TOPICS.may_answer_at(f"{TOPICS.reply}/client42")
    for topic in (
        "",
        "$SYS/x",
        "a/+",
        "a/#",
        "a\x00",
        "x" * 1025,
        TOPICS.command,
        TOPICS.status,
        TOPICS.alarm("a", "b"),
    ):
        assert not TOPICS.may_answer_at(topic)
    assert not TOPICS.may_answer_at("plants/eu/Acme/other site/_gateway/other/command")
