"""The pages people look at: view models, templates, pictures. `orchestrator.api.pages` serves them."""

from orchestrator.dashboard.dashboard import Body, Dashboard
from orchestrator.dashboard.rendering import ASSETS, Message, Visit, asset_bytes, asset_url

__all__ = ["ASSETS", "Body", "Dashboard", "Message", "Visit", "asset_bytes", "asset_url"]
