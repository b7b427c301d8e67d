"""A user's own labelled, unlabelled and validation data, checked before a config names it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_softpl.messages import some_of

from .annotation_file import load_annotation_file
from .annotation_findings import NO_VALIDATION_IMAGE
from .config_sets import COCO, FOLDER, LABELLED, LVIS_V1, UNLABELLED, VALIDATION, ConfiguredSet
from .findings import ERROR, WARNING, Finding
from .image_scan import HOST_CANNOT, host_size_or_error, scan_image
from .in_threads import map_in_threads
from .set_comparisons import (
    MISSING_IMAGE,
    class_findings,
    image_findings,
    leak_findings,
    size_findings,
)
from .set_contents import SetContents, SetImage, read_set

FILES = ('labeled_json', 'unlabeled_json', 'val_json', 'held_out_json')
HELD_OUT = 'held-out'
# Of `filter_cfg` in the data set that the written config inherits.
MIN_SIZE = 32
_IMAGE_FOLDERS = {
    LABELLED: 'labeled_images',
    UNLABELLED: 'unlabeled_images',
    VALIDATION: 'val_images',
}


@dataclass(frozen=True)
class OwnData:
    """Data that a training would take.

    Attributes:
        paths: argument -> path as given: ``labeled_json``, ``labeled_images``,
            ``unlabeled_images``, ``unlabeled_json`` (empty for all of the folder), ``val_json``,
            ``val_images``, ``held_out_json`` (empty for none).
        dataset_types: ``'labelled'``, ``'validation'`` and ``'held-out'`` -> ``'CocoDataset'``, or
            ``'LVISV1Dataset'`` where the images are named by ``coco_url`` alone.
        labelled, unlabelled, validation: what the sets hold.
        held_out: labelled images to calibrate on, if there are any.
        left_out: images of the unlabelled folder that another json has labels of; they are not
            among ``unlabelled``.
        longer_side: median over the labelled images, in pixels.
        warnings: what is doubtful.
    """

    paths: Mapping[str, str]
    dataset_types: Mapping[str, str]
    labelled: SetContents
    unlabelled: SetContents
    validation: SetContents
    held_out: SetContents | None
    left_out: int
    longer_side: float
    warnings: tuple[Finding, ...]


def flag(argument: str) -> str:
    """The command-line spelling of an argument: ``--labeled-json``."""
    return f'--{argument.replace("_", "-")}'


def path_problem(argument: str, path: str) -> str | None:
    """What is wrong with one path, or None.

    Args:
        argument: one of ``FILES``, or the folder of one.
        path: as given.
    """
    if argument in FILES:
        if os.path.isdir(path):
            swapped = argument.replace('held_out', 'labeled').replace('json', 'images')
            return (
                f'{flag(argument)} {path}: a folder, but a json is needed; was it swapped with '
                f'{flag(swapped)}?'
            )
        if not os.path.isfile(path):
            return f'{flag(argument)} {path}: there is no such file'
    else:
        if os.path.isfile(path):
            swapped = argument.replace('images', 'json')
            return (
                f'{flag(argument)} {path}: a file, but a folder of images is needed; was it '
                f'swapped with {flag(swapped)}?'
            )
        if not os.path.isdir(path):
            return f'{flag(argument)} {path}: there is no such folder'
    return None


def check_own_data(
    paths: Mapping[str, str], track: Callable[[int], Callable[[], None]] | None = None
) -> OwnData:
    """Check the files, that the images are there and whole, and that the sets fit each other.

    Images are opened, but decoded only where their end looks wrong.

    Args:
        paths: as :class:`OwnData` has them; ``unlabeled_json`` and ``held_out_json`` may be left
            out.
        track: called with the number of images to open; returns what is called after each.

    Returns:
        The data.

    Raises:
        ValueError: the data cannot be trained on; the message has every reason and what to do.
    """
    wrong = [p for name, path in paths.items() if path and (p := path_problem(name, path))]
    if wrong:
        raise ValueError('\n'.join(wrong))
    labelled = _set(LABELLED, paths['labeled_json'], paths['labeled_images'], True)
    validation = _set(VALIDATION, paths['val_json'], paths['val_images'], True)
    unlabelled = _set(UNLABELLED, paths.get('unlabeled_json', ''), paths['unlabeled_images'], False)
    held_out = None
    if paths.get('held_out_json'):
        held_out = _held_out(paths['held_out_json'], paths['labeled_images'])
    judged = (validation,) if held_out is None else (validation, held_out)
    left_out, everything = 0, len(unlabelled.images)
    if not paths.get('unlabeled_json'):
        unlabelled = _without(unlabelled, (labelled, *judged))
        left_out = everything - len(unlabelled.images)
    sets = (labelled, unlabelled, *judged)
    findings = [finding for one in sets for finding in one.findings]
    for one in sets:
        findings += [_beside_the_labelled(finding) for finding in image_findings(one, None)]
    findings += class_findings(sets)
    findings += [_strict(finding) for finding in leak_findings(sets, None)]
    findings += _calibration_on_validation(validation, held_out)
    if not any(finding.severity == ERROR for finding in findings):
        broken, sizes = _broken_images(sets, track)
        findings += broken
        unlabelled = _with_sizes(unlabelled, sizes)
    errors = [finding for finding in findings if finding.severity == ERROR]
    if errors:
        raise ValueError(
            'the data cannot be trained on:\n'
            + '\n'.join(f'  - {f.subject}: {f.kind}: {f.detail}\n    -> {f.remedy}' for f in errors)
        )
    return OwnData(
        paths=dict(paths),
        dataset_types={one.configured.name: one.configured.type for one in (labelled, *judged)},
        labelled=labelled,
        unlabelled=unlabelled,
        validation=validation,
        held_out=held_out,
        left_out=left_out,
        longer_side=float(np.median([max(i.height, i.width) for i in labelled.images])),
        warnings=tuple(findings),
    )


def unlabelled_json(data: OwnData) -> dict[str, Any]:
    """A json that lists the unlabelled images, with the categories of the labelled file.

    Args:
        data: its unlabelled set is a folder.

    Returns:
        ``images`` (``id``, ``file_name`` relative to the folder, ``height``, ``width``),
        ``annotations`` (empty) and ``categories``.
    """
    root = data.unlabelled.configured.image_root
    images = [
        dict(
            id=i,
            file_name=Path(os.path.relpath(image.path, root)).as_posix(),
            height=image.height,
            width=image.width,
        )
        for i, image in enumerate(data.unlabelled.images, start=1)
    ]
    categories = load_annotation_file(data.labelled.configured.ann_file)['categories']
    return dict(images=images, annotations=[], categories=categories)


def _set(role: str, ann_file: str, image_root: str, with_masks: bool) -> SetContents:
    """As the written config will have it."""
    kind, type_name, classes = FOLDER, 'UnlabeledImageDataset', None
    if role != UNLABELLED:
        kind, type_name = COCO, 'CocoDataset'
        data = load_annotation_file(ann_file)
        images = [image for image in data['images'] if isinstance(image, dict)]
        if images and all('file_name' not in i and 'coco_url' in i for i in images):
            kind, type_name = LVIS_V1, 'LVISV1Dataset'
    return read_set(
        ConfiguredSet(
            name=role,
            role=role,
            key=flag(_IMAGE_FOLDERS[role]),
            type=type_name,
            kind=kind,
            ann_file=ann_file,
            image_root=image_root,
            classes=classes,
            local=True,
            filter_empty=role == LABELLED,
            min_size=MIN_SIZE if role in (LABELLED, UNLABELLED) else 0,
            oversample_thr=None,
            times=1,
            source=0,
            indices=None,
            with_masks=with_masks,
        )
    )


def _held_out(ann_file: str, image_root: str) -> SetContents:
    """As a validation set of boxes; a class without an image takes its group's calibration."""
    contents = _set(VALIDATION, ann_file, image_root, False)
    findings = [f for f in contents.findings if f.kind != NO_VALIDATION_IMAGE]
    configured = replace(contents.configured, name=HELD_OUT, key=flag('labeled_images'))
    renamed = tuple(replace(finding, subject=HELD_OUT) for finding in findings)
    return replace(contents, configured=configured, findings=renamed)


def _beside_the_labelled(finding: Finding) -> Finding:
    """The written config has one folder for both."""
    if (finding.subject, finding.kind) != (HELD_OUT, MISSING_IMAGE):
        return finding
    remedy = 'they are looked for in the folder of --labeled-images: copy or link them there'
    return replace(finding, remedy=remedy)


def _strict(leak: Finding) -> Finding:
    """The training refuses to calibrate on images that it trains on."""
    if leak.subject != f'{LABELLED}, {HELD_OUT}':
        return leak
    return replace(
        leak,
        severity=ERROR,
        remedy='take them out of one of the two (`python -m mmdet_softpl split --held-out` cuts a '
        'labelled json in disjoint parts)',
    )


def _without(folder: SetContents, others: Sequence[SetContents]) -> SetContents:
    """A folder without the images that other sets list: one folder may hold all of them."""
    known = {
        os.path.realpath(image.path)
        for other in others
        for image in other.images
        if image.path not in other.without_annotation
    }
    images = tuple(i for i in folder.images if os.path.realpath(i.path) not in known)
    rest = replace(folder, images=images, used_images=len(images), epoch_images=len(images))
    if images or not folder.images:
        return rest
    finding = Finding(
        ERROR,
        folder.configured.name,
        'no image',
        f'all {len(folder.images)} images below {folder.configured.image_root!r} are in one of the '
        'other json files',
        'give the folder that has the unlabelled ones',
    )
    return replace(rest, findings=(*folder.findings, finding))


def _with_sizes(contents: SetContents, sizes: Mapping[str, tuple[int, int]]) -> SetContents:
    """A folder's images with their sizes, without those that are broken."""
    if contents.configured.ann_file:
        return contents
    images = tuple(SetImage(i.path, *sizes[i.path]) for i in contents.images if i.path in sizes)
    used = sum(min(i.height, i.width) >= contents.configured.min_size for i in images)
    return replace(contents, images=images, used_images=used, epoch_images=used)


def _calibration_on_validation(
    validation: SetContents, held_out: SetContents | None
) -> list[Finding]:
    paths = {os.path.realpath(image.path) for image in validation.images}
    shared = [
        image.path
        for image in (held_out.images if held_out is not None else ())
        if os.path.realpath(image.path) in paths
    ]
    if not shared:
        return []
    return [
        Finding(
            WARNING,
            f'{VALIDATION}, {HELD_OUT}',
            'images in both sets',
            f'{len(shared)} of {len(paths)}: {some_of(shared, 5)}',
            'the calibration errors of the evaluation look better than they are: take them out of '
            'one of the sets',
            len(shared),
        )
    ]


def _broken_images(
    sets: tuple[SetContents, ...], track: Callable[[int], Callable[[], None]] | None
) -> tuple[list[Finding], dict[str, tuple[int, int]]]:
    """Findings, and height and width of the sound images by path."""
    total = sum(len(one.images) for one in sets)
    advance = track(total) if track is not None else None

    findings: list[Finding] = []
    sizes: dict[str, tuple[int, int]] = {}
    for one in sets:
        paths = [image.path for image in one.images]
        broken = []
        for path, found in zip(
            paths, map_in_threads(host_size_or_error, paths, advance), strict=True
        ):
            if isinstance(found, str):
                broken.append((path, found))
            else:
                sizes[path] = found
        findings += _image_findings(one, broken) + size_findings(one, sizes)
    return findings, sizes


def _image_findings(one: SetContents, broken: list[tuple[str, str]]) -> list[Finding]:
    folder = one.configured.kind == FOLDER and not one.configured.ann_file
    groups: dict[tuple[bool, bool], list[str]] = {}
    for path, error in broken:
        # The folder's own data set leaves out what Pillow cannot read.
        group = folder and error != HOST_CANNOT, scan_image(path).readable
        groups.setdefault(group, []).append(f'{path} ({error})')
    findings = []
    for (skips, readable), shown in sorted(groups.items()):
        detail = f'{len(shown)} of {len(one.images)} images: {some_of(shown, 5)}'
        kind, remedy = 'unreadable image', 'fetch them again, or take them out of the set'
        if skips:
            remedy = 'the training leaves them out; fetch them again or remove them'
        elif readable:
            kind, remedy = 'truncated image', 'fetch them again: what is missing is grey'
        severity = WARNING if skips or readable else ERROR
        findings.append(Finding(severity, one.configured.name, kind, detail, remedy, len(shown)))
    return findings
