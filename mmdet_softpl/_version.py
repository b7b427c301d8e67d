"""The one home of the version; ``pyproject.toml`` reads it without importing anything."""

__version__ = '0.1.0'
