"""What a plant may set about its alarms as a whole."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class AlarmOptions(BaseModel):
    """The `[alarms]` section. Defaults follow ISA-18.2, IEC 62682 and OPC UA Part 9."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_shelve_s: float = Field(
        default=28_800, gt=0, le=604_800, description="Longest time an alarm may be shelved, in seconds (8 h)."
    )
    flood_start_count: int = Field(
        default=10, ge=1, le=1000, description="A flood starts when more alarms than this come within the flood window."
    )
    flood_end_count: int = Field(
        default=5, ge=1, le=1000, description="A flood ends when fewer alarms than this came within the flood window."
    )
    flood_window_s: float = Field(default=600, gt=0, le=3600, description="Length of the flood window, in seconds.")
    chatter_count: int = Field(
        default=3, ge=2, le=100, description="Activations within the chatter window that make an alarm chattering."
    )
    chatter_window_s: float = Field(default=60, gt=0, le=3600, description="Length of the chatter window, in seconds.")
    fleeting_s: float = Field(
        default=10,
        ge=0,
        le=600,
        description="An alarm that clears unacknowledged within this time is fleeting; 0 = off.",
    )
    first_out_window_s: float = Field(
        default=10,
        ge=0,
        le=3600,
        description="Alarms of a group that follow another within this time are not the first.",
    )
    realarm_after_s: float = Field(
        default=0, ge=0, le=604_800, description="An alarm still active after this time is announced again; 0 = never."
    )
    realarm_repeats_max: int = Field(default=3, ge=1, le=100, description="How often one alarm is announced again.")
    confirm_s: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="After a restart, an alarm of the gateway itself that is not confirmed within this time clears.",
    )
    stale_alarm_s: float = Field(
        default=86_400, gt=0, le=2_592_000, description="An alarm that stays active longer counts as stale (24 h)."
    )

    @model_validator(mode="after")
    def _flood_ends_below_its_start(self) -> Self:
        if self.flood_end_count > self.flood_start_count:
            raise ValueError("flood_end_count must not be above flood_start_count, else a flood would end at its start")
        return self
