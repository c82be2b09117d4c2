"""What an engineer states about a machine ([[machine]] of gateway.toml) and about working time (shifts.toml)."""

import datetime as dt
import re
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NaiveDatetime, field_validator, model_validator

from plant.calendar import MINUTES_PER_DAY, Break, Calendar, PlannedStop, ShiftRule, SpecialDay
from plant.counters import CounterRule
from plant.events import DowntimeReason, MachineState
from plant.instant import NS_PER_S
from plant.oee import TARGET_OEE, Rating

_CLOCK: Final = re.compile(r"^([01]\d|2[0-4]):([0-5]\d)$")
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
SECONDS_PER_HOUR: Final = 3600


class MachineOptions(BaseModel):
    """One machine: where its state and its counts come from, and what it could do.

    The state comes from a state word (state_tag, states) or from a signal that tells running from idle (running_tag,
    running_above). Parts come from one or two running totals of the machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$", description="unique name; virtual tags are called <name>.oee, ..."
    )
    asset: str = Field(min_length=1, description="ISA-95 path below the site: area/line/cell")
    state_tag: str | None = Field(None, description="tag with the state word or state text")
    states: dict[str, MachineState] = Field(
        default_factory=dict, description="value of state_tag -> running, idle, setup, down or maintenance"
    )
    running_tag: str | None = Field(
        None, description="tag that tells by its height whether the machine runs, e.g. power"
    )
    running_above: float = Field(0.5, description="running when running_tag is above this")
    running_below: float | None = Field(
        None, description="no longer running when running_tag is below this; running_above if left out"
    )
    stopped_state: Literal[MachineState.IDLE, MachineState.DOWN] = Field(
        MachineState.IDLE, description="state while running_tag says that the machine does not run"
    )
    reason_tag: str | None = Field(None, description="tag with the code or text of the reason of a stop")
    reasons: dict[str, DowntimeReason] = Field(
        default_factory=dict,
        description="value of reason_tag -> planned_maintenance, breakdown, changeover, no_operator, no_material or "
        "quality_issue; other values mean no reason",
    )
    produced_tag: str | None = Field(None, description="tag with the running total of all parts, good and bad")
    good_tag: str | None = Field(None, description="tag with the running total of good parts")
    rejected_tag: str | None = Field(None, description="tag with the running total of rejected parts")
    counter_maximum: float | None = Field(
        None, gt=0, description="highest value of the counters before they start again at 0, e.g. 65535"
    )
    max_step_per_s: float | None = Field(
        None, gt=0, description="a counter that rises faster than this many parts a second is not believed"
    )
    judged_within_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="with produced_tag and good_tag: a part that is not counted good within this time is a reject",
    )
    parts_period_s: float = Field(
        1.0, ge=0, le=60, description="parts are gathered into one event for at most this long; OEE lags by as much"
    )
    order_tag: str | None = Field(None, description="text tag with the number of the order")
    product_tag: str | None = Field(None, description="tag with the product (text or number)")
    target_rate_per_h: float | None = Field(None, gt=0, description="parts per hour at ideal speed")
    ideal_cycle_s: float | None = Field(
        None, gt=0, description="seconds per part at ideal speed, instead of a target rate"
    )
    products: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="product -> its own seconds per part at ideal speed"
    )
    micro_stop_s: float = Field(
        60.0, ge=0, le=3600, description="a stop shorter than this costs performance, not availability"
    )
    startup_s: float = Field(
        0.0, ge=0, le=36_000, description="rejects during set-up and this long after it are start-up rejects; 0 = off"
    )
    target_oee: float = Field(TARGET_OEE, gt=0, le=1, description="OEE to reach, 0..1; an alarm limit is set elsewhere")
    cost_per_hour: float | None = Field(None, ge=0, description="what an hour of lost time costs")
    currency: str = Field("EUR", pattern=r"^[A-Z]{3}$", description="ISO 4217 code of cost_per_hour")
    unknown_after_s: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="the state is unknown when its tag is bad, or its whole device silent, for longer than this",
    )

    @model_validator(mode="after")
    def _one_source_each(self) -> "MachineOptions":
        if (self.state_tag is None) == (self.running_tag is None):
            raise ValueError(f"machine {self.name}: give state_tag or running_tag, and only one of them")
        if self.state_tag is not None and not self.states:
            raise ValueError(f'machine {self.name}: state_tag needs a table, e.g. states = {{ "1" = "running" }}')
        if self.reason_tag is not None and not self.reasons:
            raise ValueError(f'machine {self.name}: reason_tag needs a table, e.g. reasons = {{ "7" = "no_material" }}')
        if self.running_below is not None and self.running_below > self.running_above:
            raise ValueError(f"machine {self.name}: running_below must not be above running_above")
        if None not in {self.produced_tag, self.good_tag, self.rejected_tag}:
            raise ValueError(f"machine {self.name}: any two of produced_tag, good_tag and rejected_tag say it all")
        if self.rejected_tag is not None and self.produced_tag is None and self.good_tag is None:
            raise ValueError(f"machine {self.name}: rejected_tag needs produced_tag or good_tag beside it")
        if self.target_rate_per_h is not None and self.ideal_cycle_s is not None:
            raise ValueError(f"machine {self.name}: give target_rate_per_h or ideal_cycle_s, not both")
        return self

    @property
    def rating(self) -> Rating:
        """What the machine could do, in the terms of `plant.oee`."""
        cycle_s = self.ideal_cycle_s
        if self.target_rate_per_h is not None:
            cycle_s = SECONDS_PER_HOUR / self.target_rate_per_h
        return Rating(
            ideal_ns=None if cycle_s is None else cycle_s * NS_PER_S,
            products={product: seconds * NS_PER_S for product, seconds in self.products.items()},
            micro_stop_ns=round(self.micro_stop_s * NS_PER_S),
            startup_ns=round(self.startup_s * NS_PER_S),
            counted=not (self.produced_tag is self.good_tag is None),
        )

    @property
    def counter_rule(self) -> CounterRule:
        """How its counters may move."""
        return CounterRule(self.counter_maximum, self.max_step_per_s)


def _minutes(value: object) -> object:
    """Read "06:00", "24:00" or a TOML local time as minutes after midnight."""
    if isinstance(value, dt.time):
        return value.hour * 60 + value.minute
    if isinstance(value, str):
        match = _CLOCK.match(value)
        if match is None or int(match[1]) * 60 + int(match[2]) > MINUTES_PER_DAY:
            raise ValueError(f'{value!r} is no time of day; write "06:00", midnight at the end of a day is "24:00"')
        return int(match[1]) * 60 + int(match[2])
    raise ValueError(f'{value!r} is no time of day; write "06:00" with the quotes')


TimeOfDay = Annotated[int, BeforeValidator(_minutes)]


class BreakOptions(BaseModel):
    """A pause inside a shift: not planned for production."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("break", description="what the pause is called")
    start: TimeOfDay = Field(description='time of day, "10:00"')
    end: TimeOfDay = Field(description='time of day, "10:30"')


class ShiftOptions(BaseModel):
    """A shift that recurs. An end at or before the start lies on the next day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="what the shift is called")
    start: TimeOfDay = Field(description='time of day, "06:00"')
    end: TimeOfDay = Field(description='time of day, "14:00"; equal to start means a whole day')
    days: tuple[Weekday, ...] = Field(WEEKDAYS, min_length=1, description="weekdays on which it starts")
    assets: tuple[str, ...] = Field((), description="asset paths it holds for; the longest path wins; empty = the site")
    break_: tuple[BreakOptions, ...] = Field((), alias="break", description="pauses")


class PlannedStopOptions(BaseModel):
    """No production is planned from start to end: a holiday, an overhaul."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: NaiveDatetime = Field(description="local date and time, 2026-12-24T06:00:00")
    end: NaiveDatetime = Field(description="local date and time")
    reason: str = Field(min_length=1, description="why")
    assets: tuple[str, ...] = Field((), description="asset paths it holds for; empty = the site")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _date_is_midnight(cls, value: object) -> object:
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return dt.datetime.combine(value, dt.time())
        return value


class SpecialDayOptions(BaseModel):
    """A date on which exactly these shifts start, whatever their weekdays say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date = Field(description="local date, 2026-12-25")
    name: str = Field(min_length=1, description="what the day is")
    shifts: tuple[str, ...] = Field((), description="names of the shifts that start on it; empty = closed")
    assets: tuple[str, ...] = Field((), description="asset paths it holds for; empty = the site")


class ShiftsOptions(BaseModel):
    """shifts.toml. Without a [[shift]] production is planned round the clock, one shift "day" a day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_zone: str | None = Field(None, description="IANA time zone of all times here; the site's if left out")
    shift: tuple[ShiftOptions, ...] = Field((), description="shifts")
    planned_stop: tuple[PlannedStopOptions, ...] = Field((), description="stretches without planned production")
    special_day: tuple[SpecialDayOptions, ...] = Field((), description="dates that differ from the week")

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(f"{value!r} is no IANA time zone, e.g. Europe/Berlin") from error
        return value


def calendar_of(options: ShiftsOptions, site_time_zone: str) -> Calendar:
    """Build the calendar of shifts.toml in its own time zone or the site's."""
    return Calendar(
        zone=ZoneInfo(options.time_zone or site_time_zone),
        rules=tuple(
            ShiftRule(
                name=shift.name,
                start=shift.start % MINUTES_PER_DAY,
                end=shift.end % MINUTES_PER_DAY,
                days=frozenset(WEEKDAYS.index(day) for day in shift.days),
                assets=shift.assets,
                breaks=tuple(
                    Break(pause.name, pause.start % MINUTES_PER_DAY, pause.end % MINUTES_PER_DAY)
                    for pause in shift.break_
                ),
            )
            for shift in options.shift
        ),
        stops=tuple(
            PlannedStop(start=stop.start, end=stop.end, reason=stop.reason, assets=stop.assets)
            for stop in options.planned_stop
        ),
        special_days=tuple(
            SpecialDay(day=special.date, name=special.name, shifts=special.shifts, assets=special.assets)
            for special in options.special_day
        ),
    )


def check_shifts(options: ShiftsOptions, site_time_zone: str) -> list[str]:
    """Return one sentence per rule of shifts.toml that cannot be meant, naming what is involved."""
    return [problem.what for problem in calendar_of(options, site_time_zone).problems()]
