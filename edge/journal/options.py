"""What a plant may set about the journal."""

from pydantic import BaseModel, ConfigDict, Field


class JournalOptions(BaseModel):
    """The journal: how long events are kept and how often it is backed up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    journal_retention_days: float = Field(
        default=400,
        gt=0,
        le=7300,
        description="Events older than this are dropped once every consumer has them, in days.",
    )
    journal_bytes_max: int = Field(
        default=512_000_000,
        ge=1_000_000,
        description="Bytes of the journal; beyond them the oldest events go even if a consumer has not read them.",
    )
    journal_backup_minutes: float = Field(
        default=60, gt=0, le=10_080, description="Time between two backups of the journal, in minutes."
    )
