"""The Model Gateway: one door to many LLM providers, as composable ASGI middlewares."""

from gateway_middleware._version import __version__
from gateway_middleware.app import create_app
from gateway_middleware.gateway import Gateway, mount
from gateway_middleware.settings import Settings

__all__ = [
    "Gateway",
    "Settings",
    "__version__",
    "create_app",
    "mount",
]
