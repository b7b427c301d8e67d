"""Findings about images, and about sets among each other."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from itertools import combinations
from urllib.parse import unquote

from mmdet_softpl.messages import some_of

from .annotation_checks import check_same_categories
from .annotation_file import AnnotationError
from .config_sets import FOLDER, LABELLED, TEST, UNLABELLED, VALIDATION, ConfiguredSet
from .findings import ERROR, WARNING, Finding
from .image_scan import HOST_CANNOT, ScannedImage
from .set_contents import SetContents, SetImage

MISSING_IMAGE = 'missing image'
_LEAKS = {
    (LABELLED, VALIDATION): 'the evaluation is too good: take them out of one of the sets',
    (LABELLED, TEST): 'the test is too good: take them out of one of the sets',
    (UNLABELLED, VALIDATION): 'the student trains on validation images, if without their labels: '
    'take them out of the unlabelled set',
    (UNLABELLED, TEST): 'the student trains on test images, if without their labels: take them '
    'out of the unlabelled set',
    (LABELLED, UNLABELLED): 'they bring nothing that their labels do not: take them out of the '
    'unlabelled set, whose `ann_file` may be a json of the others (`new-config` and `split` write '
    'one)',
}


def image_findings(
    contents: SetContents, scanned: Mapping[str, ScannedImage] | None
) -> list[Finding]:
    """Missing, unreadable, truncated, black and duplicate images, and sizes that differ.

    Args:
        contents: a set.
        scanned: what reading its images gave, by path; None where they were not read.

    Returns:
        The findings.
    """
    name = contents.configured.name
    findings: list[Finding] = []

    def note(
        severity: str, kind: str, items: Sequence[object], remedy: str, count: int | None = None
    ) -> None:
        if items:
            count = len(items) if count is None else count
            detail = f'{count} of {len(contents.images)} images: {some_of(items, 5)}'
            findings.append(Finding(severity, name, kind, detail, remedy, count))

    present = [image for image in contents.images if os.path.isfile(image.path)]
    there = {image.path for image in present}
    missing = [image.path for image in contents.images if image.path not in there]
    # The folder's own data set leaves out what Pillow cannot read, links to nothing among it.
    skips = contents.configured.kind == FOLDER and not contents.configured.ann_file
    if skips and present:
        remedy = 'the training leaves them out; fetch what they link to, or remove them'
        note(WARNING, MISSING_IMAGE, missing, remedy)
    else:
        remedy = _where_to_look(contents.configured, missing, not present)
        note(ERROR, MISSING_IMAGE, missing, remedy)
    if scanned is None:
        return findings

    broken = [(i.path, scanned[i.path].error) for i in present if not scanned[i.path].readable]
    for left_out in (False, True):
        note(
            WARNING if left_out else ERROR,
            'unreadable image',
            [f'{p} ({e})' for p, e in broken if (skips and e != HOST_CANNOT) == left_out],
            'the training leaves them out; fetch them again or remove them'
            if left_out
            else 'fetch them again, or take them out of the set',
        )
    note(
        WARNING,
        'truncated image',
        [f'{i.path} ({scanned[i.path].error})' for i in present if _is_damaged(scanned[i.path])],
        'fetch them again: what is missing is grey',
    )
    note(
        WARNING,
        'image that is nearly black to mmdet',
        [i.path for i in present if scanned[i.path].lost_depth],
        'of 16 bits a channel it keeps the upper 8, and these files hardly use them: spread their '
        'values over the whole range, or save them with 8 bits',
    )
    sizes = {p: (s.height, s.width) for p, s in scanned.items() if s.readable}
    findings += size_findings(contents, sizes)
    copies = [group for group in _by_content(contents, scanned).values() if len(group) > 1]
    note(
        WARNING,
        'duplicate image',
        # A camera that was covered for an hour gives one image a thousand times.
        [f'{len(group)} alike: {some_of(group, 5, " = ")}' for group in copies],
        'each counts more than once; remove the copies, above all if their labels differ',
        sum(len(group) - 1 for group in copies),
    )
    return findings


def size_findings(contents: SetContents, sizes: Mapping[str, tuple[int, int]]) -> list[Finding]:
    """Images whose json says another size, so that annotations lie elsewhere in them.

    Args:
        contents: a set.
        sizes: height and width of the images that can be read, by path.

    Returns:
        The findings: errors where most images differ, or an RLE would not be read.
    """
    present = [image for image in contents.images if image.path in sizes]
    differing = [
        image
        for image in present
        if image.height and image.width and (image.height, image.width) != sizes[image.path]
    ]
    findings = []
    for fits_one_size in (True, False):
        images = [
            image
            for image in differing
            if (image.has_rle and contents.configured.with_masks) == fits_one_size
        ]
        if not images:
            continue
        shown = some_of([_sizes(image, sizes[image.path]) for image in images], 5)
        findings.append(
            Finding(
                ERROR if fits_one_size or 2 * len(differing) > len(present) else WARNING,
                contents.configured.name,
                'image of another size than the json says',
                f'{len(images)} of {len(contents.images)} images: {shown}',
                'the annotations are of another version of the image, or of one that was not '
                'turned as its EXIF orientation says: correct the json or the image'
                + (
                    '; an RLE mask fits one size alone: no other is read or found'
                    if fits_one_size
                    else ''
                ),
                len(images),
            )
        )
    return findings


def _where_to_look(configured: ConfiguredSet, missing: Sequence[str], none_there: bool) -> str:
    """What to do about missing images."""
    folder = configured.image_root
    if configured.key.startswith('--'):
        remedy = f'correct {configured.key}, to which the file names of {configured.ann_file} are '
        remedy += 'joined'
    else:
        remedy = 'correct `data_root` or `data_prefix` (the two and the file name are joined; '
        remedy += f'relative paths count from {os.getcwd()!r})'
    if not os.path.isdir(folder or '.'):
        return f'{remedy}; the folder {folder!r} does not exist'
    if not missing:
        return remedy
    above, own = os.path.split(os.path.abspath(folder))
    name = os.path.relpath(missing[0], folder)
    doubled = name.split(os.sep)[0] == own and os.path.isfile(os.path.join(above, name))
    if os.path.isfile(os.path.join(folder, name.replace('\\', '/'))):
        return (
            f'write / for \\ in the file names of {configured.ann_file}: only Windows takes a '
            'backslash for a folder, and with / the files are there'
        )
    for form in ('NFC', 'NFD'):
        if os.path.isfile(os.path.join(folder, unicodedata.normalize(form, name))):
            return (
                f'the letters with accents of {configured.ann_file} are composed otherwise than '
                f'those of the files, as between macOS and others: write the names in Unicode '
                f'form {form} (unicodedata.normalize)'
            )
    if os.path.isfile(os.path.join(folder, unquote(name))):
        return (
            f'the file names of {configured.ann_file} are those of an address (%20 for a space): '
            'decode them (urllib.parse.unquote)'
        )
    if none_there and doubled:
        return f'{remedy}; the file names begin with the name of the folder already: give {above!r}'
    if none_there:
        return f'{remedy}; none is there: this may be the json of another data set'
    return f'{remedy}, or fetch the images'


def leak_findings(
    sets: Sequence[SetContents], scanned: Mapping[str, ScannedImage] | None
) -> list[Finding]:
    """Images that two sets of different roles share.

    Args:
        sets: of a config.
        scanned: by path; with None files are the same where their real paths are.

    Returns:
        The findings, all of them warnings.
    """
    # What is not labelled yet may well be among the unlabelled images.
    contents = [(one, _by_content(one, scanned, one.without_annotation)) for one in sets]
    findings = []
    for (a, images_a), (b, images_b) in combinations(contents, 2):
        roles = (a.configured.role, b.configured.role)
        remedy = _LEAKS.get(roles) or _LEAKS.get(roles[::-1])
        shared = [key for key in images_a if key in images_b]
        if remedy is None or not shared:
            continue
        pairs = [f'{images_a[key][0]} = {images_b[key][0]}' for key in shared]
        findings.append(
            Finding(
                WARNING,
                f'{a.configured.name}, {b.configured.name}',
                'images in both sets',
                f'{len(shared)} of {len(images_a)} and {len(images_b)}: {some_of(pairs, 5)}',
                remedy,
                len(shared),
            )
        )
    return findings


def class_findings(sets: Sequence[SetContents]) -> list[Finding]:
    """Classes that differ from those of the first labelled set.

    Args:
        sets: of a config.

    Returns:
        The findings: an error where the model is trained or evaluated on the classes.
    """
    reference = next(
        (s for s in sets if s.configured.role == LABELLED and s.summary is not None), None
    )
    if reference is None or reference.summary is None:
        return []
    findings = []
    for other in sets:
        if other is reference or other.summary is None:
            continue
        try:
            check_same_categories(reference.summary, other.summary)
        except AnnotationError as error:
            detail, _, remedy = str(error).rstrip('.').rpartition('. ')
            if other.configured.role == UNLABELLED:
                if set(other.summary.classes) >= set(reference.summary.classes):
                    # The labelled set may be of some classes of its file only.
                    continue
                severity = WARNING
                remedy = 'nothing, if it is the right file: no category of it is read'
            else:
                severity = ERROR
            subject = f'{reference.configured.name}, {other.configured.name}'
            findings.append(Finding(severity, subject, 'other classes', detail, remedy))
    return findings


def _is_damaged(image: ScannedImage) -> bool:
    return image.readable and bool(image.error)


def _sizes(image: SetImage, size: tuple[int, int]) -> str:
    declared, real = f'{image.width} x {image.height}', f'{size[1]} x {size[0]}'
    return f'{image.path} is {real}, declared {declared}'


def _by_content(
    contents: SetContents,
    scanned: Mapping[str, ScannedImage] | None,
    but: Container[str] = (),
) -> dict[str, list[str]]:
    """Paths of the images by what is in them; without a scan, by the real path."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for image in contents.images:
        if image.path in but:
            continue
        found = None if scanned is None else scanned.get(image.path)
        if found is not None and found.digest:
            groups[found.digest].append(image.path)
        elif os.path.isfile(image.path):
            groups[os.path.realpath(image.path)].append(image.path)
    return groups
