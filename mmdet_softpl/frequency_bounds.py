"""Bounds of the frequency groups of LVIS (arXiv 1908.03195)."""

from __future__ import annotations

RARE_MAX_IMAGES = 10
COMMON_MAX_IMAGES = 100
