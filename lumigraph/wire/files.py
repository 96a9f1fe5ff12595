"""A project file as plain data."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class StoredFile(BaseModel):
    """A complete file. `etag` changes whenever its bytes do."""

    model_config = ConfigDict(frozen=True)

    name: str  # path components separated by /
    bytes: int = Field(ge=0)
    etag: str
    modified: datetime
