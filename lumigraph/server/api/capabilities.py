"""What this installation offers: methods with the form of their settings, and formats."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from lumigraph.server.api.projects import Known
from lumigraph.server.capability_probe import FormatOffer, Setting
from lumigraph.server.problems import documented

router = APIRouter(tags=["offers"])


class MethodOffer(BaseModel):
    """A way of learning a scene. `form` of a setting is JSON Schema."""

    name: str
    default: bool = Field(description="taken where a job names none")
    settings: list[Setting]


@router.get("/methods", responses=documented(503))
def methods(service: Known) -> list[MethodOffer]:
    """Every method with its settings. The first answer after a start may take some seconds."""
    described = service.catalogue.get()
    return [
        MethodOffer(name=name, default=name == described.default, settings=settings)
        for name, settings in described.methods.items()
    ]


@router.get("/formats", responses=documented(503))
def formats(service: Known) -> list[FormatOffer]:
    """Every format that a run can be exported to, what each can hold and with which settings."""
    return service.catalogue.get().formats
