"""The configuration: every variable with its name, its meaning, its default and its checks.

The environment is read here, and nowhere else in the package.
"""

from gateway_middleware.core.secret import Secret
from gateway_middleware.settings.root import Settings, key_secret
from gateway_middleware.settings.tree import (
    DeploymentSettings,
    GuardSettings,
    ProviderSettings,
    RouteSettings,
    TenantSettings,
)
from gateway_middleware.settings.variables import VARIABLES, Variable

__all__ = [
    "VARIABLES",
    "DeploymentSettings",
    "GuardSettings",
    "ProviderSettings",
    "RouteSettings",
    "Secret",
    "Settings",
    "TenantSettings",
    "Variable",
    "key_secret",
]
