"""Frameworks by name: a worker loads the adapter of its backend, and only that adapter imports the framework."""

from __future__ import annotations

import importlib

from .base import Adapter

# framework, as a backend names it: the adapter's module, relative to this package or absolute, and its class
ADAPTERS = {"torch": (".torch", "TorchAdapter"), "mlx": (".mlx", "MlxAdapter")}


def check_framework(name: str) -> None:
    """Imports nothing. Raises ``ValueError``: no adapter has this name."""
    if name not in ADAPTERS:
        raise ValueError(f"unknown framework {name!r}: one of {', '.join(ADAPTERS)}")


def load_adapter(framework: str, device: str) -> Adapter:
    """Import the framework. ``device``: as the backend names it, such as ``cpu``, ``cuda``, ``gpu``.

    Raises ``ValueError``: no adapter has this name. Raises ``ImportError``: the framework is not installed, or is
    broken."""
    check_framework(framework)
    module, name = ADAPTERS[framework]
    adapter: type[Adapter] = getattr(importlib.import_module(module, __name__), name)
    return adapter(device)
