"""Warnings that a run hears once, however often they are due."""

from __future__ import annotations

from mmengine.logging import MMLogger

# (name of the logger, warning)
_reported: set[tuple[str, str]] = set()


def warn_once(warning: str) -> None:
    """Log a warning with the current logger, unless that has it already."""
    logger = MMLogger.get_current_instance()
    if (logger.instance_name, warning) not in _reported:
        _reported.add((logger.instance_name, warning))
        logger.warning(warning)
