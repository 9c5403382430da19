"""The forward model that kill and interrupt tests share with the integration tests."""

from tests.integration.conftest import data, forward_model

__all__ = ["data", "forward_model"]
