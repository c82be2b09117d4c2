"""What a plant may set about the ring."""

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SEGMENTS_PER_BUDGET: Final = 20
"""A file is closed when it holds this share of the byte budget: then unlinking one frees 5 %."""
SEGMENT_BYTES_MIN: Final = 1_000_000
SEGMENTS_BY_AGE_MAX: Final = 500
"""Files that the age limit may lead to; every query plans over all of them."""
BALLAST_BYTES_MAX: Final = 64_000_000
WAL_BYTES_MAX: Final = 16_000_000
"""A checkpoint of this much stalls a commit for about 50 ms; a smaller limit costs more CPU a row."""
SMALL_BLOCK_BYTES: Final = 16_384
BLOCK_BYTES: Final = 262_144


class RingOptions(BaseModel):
    """The ring: how much it may hold and how it makes room."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes_max: int = Field(
        default=4_000_000_000,
        ge=8_000_000,
        description="Bytes that the ring may take, ballast and damaged files included.",
    )
    age_max_days: float = Field(default=90, gt=0, le=3650, description="Readings older than this are dropped, in days.")
    segment_minutes: int = Field(
        default=1440, ge=1, le=20_160, description="Longest time that one file of the ring covers, in minutes."
    )
    ballast_bytes: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Bytes set aside for the last step on a full disk; by default 5 % of bytes_max, at most 64 MB.",
    )
    free_bytes_min: int = Field(
        default=200_000_000,
        ge=0,
        description="Free bytes that the disk should keep; below it the oldest readings go and an alarm is raised.",
    )
    memory_bytes_max: int = Field(
        default=192_000_000, ge=64_000_000, description="Memory that the database engine may use, queries included."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.age_max_days * 1440 / self.segment_minutes > SEGMENTS_BY_AGE_MAX:
            raise ValueError(
                f"age_max_days = {self.age_max_days:g} with segment_minutes = {self.segment_minutes} makes more than "
                f"{SEGMENTS_BY_AGE_MAX} files: raise segment_minutes"
            )
        if self.ballast > self.bytes_max // 4:
            raise ValueError(f"ballast_bytes = {self.ballast} is more than a quarter of bytes_max = {self.bytes_max}")
        return self

    @property
    def ballast(self) -> int:
        """Bytes of the ballast file."""
        if self.ballast_bytes is not None:
            return self.ballast_bytes
        return min(BALLAST_BYTES_MAX, self.bytes_max // 20)

    @property
    def segment_bytes(self) -> int:
        """Bytes at which a file is closed."""
        return max(SEGMENT_BYTES_MIN, self.bytes_max // SEGMENTS_PER_BUDGET)

    @property
    def wal_bytes(self) -> int:
        """Bytes of write-ahead log after which the open file is checkpointed."""
        return min(WAL_BYTES_MAX, self.segment_bytes // 4)

    @property
    def block_bytes(self) -> int:
        """Block size of a file: small files would waste most of the engine's usual 256 KiB."""
        return BLOCK_BYTES if self.segment_bytes >= 32 * BLOCK_BYTES else SMALL_BLOCK_BYTES
