"""A file that somebody put into a project, as plain data."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class StoredFile(BaseModel):
    """A complete file. `etag` changes whenever its bytes do."""

    model_config = ConfigDict(frozen=True)

    name: str  # parts separated by /
    bytes: int = Field(ge=0)
    etag: str
    modified: datetime
