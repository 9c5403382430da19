"""The REST API: experiments, queue and instruments over HTTP, for facility schedulers, scripts and the page."""

from orchestrator.api.access import SCOPES, Identity, check_binding
from orchestrator.api.app import create_app
from orchestrator.api.services import InstrumentDesk, Services
from orchestrator.api.tokens import Token, Tokens

__all__ = ["SCOPES", "Identity", "InstrumentDesk", "Services", "Token", "Tokens", "check_binding", "create_app"]
