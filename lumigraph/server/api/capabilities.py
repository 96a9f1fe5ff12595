"""Routes for the capabilities of this installation: methods and export formats, with schemas of their settings."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from lumigraph.server.api.projects import ServerDep
from lumigraph.server.capability_probe import FormatOffer, Setting
from lumigraph.server.problems import error_responses

router = APIRouter(tags=["offers"])


class MethodOffer(BaseModel):
    """A training method. The `form` of a setting is JSON Schema."""

    name: str
    default: bool = Field(description="used by jobs that name no method")
    settings: list[Setting]


@router.get("/methods", responses=error_responses(503))
def methods(server: ServerDep) -> list[MethodOffer]:
    """Every method with its settings. The first response after a start may take some seconds."""
    capabilities = server.probe.get()
    return [
        MethodOffer(name=name, default=name == capabilities.default, settings=settings)
        for name, settings in capabilities.methods.items()
    ]


@router.get("/formats", responses=error_responses(503))
def formats(server: ServerDep) -> list[FormatOffer]:
    """Every format that a run can be exported to, with its kinds of content and their settings."""
    return server.probe.get().formats
