"""Which versions of what the package works with are installed, and which were never tested."""

from __future__ import annotations

import importlib.metadata

# Distributions that can provide an import name, the official one first.
_PROVIDERS = {
    'torch': ('torch',),
    'torchvision': ('torchvision',),
    'numpy': ('numpy',),
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'faster-coco-eval': ('faster-coco-eval',),
    'pycocotools': ('pycocotools',),
    'lvis': ('lvis',),
    'setuptools': ('setuptools',),
}

# Release series that the test suite runs on (distribution -> prefixes of its version).
_TESTED = {
    'mmengine': ('0.10.',),
    'mmcv': ('2.1.',),
    'mmcv-lite': ('2.1.',),
    'mmdet': ('3.3.',),
}


def stack() -> dict[str, dict[str, str | None]]:
    """The installed versions of what the package works with.

    Returns:
        import name -> ``version`` (None: not installed), ``distribution`` that provides it
        (``mmcv-lite`` or ``onedl-mmcv`` for ``mmcv``, say) and ``origin``: ``'openmmlab'``,
        ``'onedl'`` or None where the name is no part of either. Several distributions of one
        import name overwrite each other's files; ``distribution`` then lists them joined
        with ``' + '``.
    """
    found: dict[str, dict[str, str | None]] = {}
    for name, candidates in _PROVIDERS.items():
        versions = {dist: _version_of(dist) for dist in candidates}
        present = [dist for dist in candidates if versions[dist] is not None]
        origin = None
        if present and name.startswith('mm'):
            origin = 'onedl' if present[0].startswith('onedl') else 'openmmlab'
        found[name] = {
            'version': versions[present[0]] if present else None,
            'distribution': ' + '.join(present) or None,
            'origin': origin,
        }
    return found


def untested(found: dict[str, dict[str, str | None]] | None = None) -> list[str]:
    """Sentences about installed versions that the test suite does not run on.

    Args:
        found: what :func:`stack` returned; asked again when None.
    """
    found = stack() if found is None else found
    sentences = []
    for name in ('mmengine', 'mmcv', 'mmdet'):
        version, distribution = found[name]['version'], found[name]['distribution']
        if version is None or distribution is None:
            continue
        prefixes = _TESTED.get(distribution)
        if prefixes is None:
            sentences.append(f'{name} comes from {distribution} {version}, which is not tested')
        elif not version.startswith(prefixes):
            tested = ', '.join(prefix + 'x' for prefix in prefixes)
            sentences.append(f'{distribution} {version} is not tested (tested: {tested})')
    return sentences


def release(version: str) -> tuple[int, int]:
    """Major and minor number of a version such as ``2.13.0+cpu``."""
    major, minor = version.split('.')[:2]
    return int(major), int(minor)


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
