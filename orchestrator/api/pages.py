"""Routes of the pages people look at. Neighbours: `app` mounts them, `orchestrator.dashboard` makes them."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter()
