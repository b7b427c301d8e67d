"""Images on the disk: copies, formats, and what is broken."""

from __future__ import annotations

import shutil

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmdet_softpl.datasets.image_scan import HOST_CANNOT, scan_image, scan_images


@pytest.fixture()
def folder(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    for name in ('a.png', 'a.bmp', 'a.jpg'):
        assert cv2.imwrite(str(tmp_path / name), picture)
    cv2.imwrite(str(tmp_path / 'other.png'), picture[::-1])
    # The same bytes of pixels in another shape.
    cv2.imwrite(str(tmp_path / 'shape.png'), picture.reshape(60, 40, 3))
    shutil.copy(tmp_path / 'a.png', tmp_path / 'copy.png')
    return tmp_path


def test_equal_pixels_have_equal_digests(folder):
    names = ('a.png', 'a.bmp', 'copy.png', 'other.png', 'shape.png', 'a.jpg')
    scanned = {name: scan_image(folder / name) for name in names}
    assert all(s.readable and not s.error for s in scanned.values())
    assert (scanned['a.png'].height, scanned['a.png'].width) == (40, 60)
    digests = [scanned[name].digest for name in names]
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests)) == 4


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (60, 40)).save(tmp_path / 'turned.jpg', exif=exif)
    found = scan_image(tmp_path / 'turned.jpg')
    assert (found.height, found.width) == (60, 40)


def test_truncated_has_an_error(folder):
    content = (folder / 'a.jpg').read_bytes()
    (folder / 'cut.jpg').write_bytes(content[: len(content) * 2 // 3])
    found = scan_image(folder / 'cut.jpg')
    assert 'truncated' in found.error
    # OpenCV 4 gives the part that is there, OpenCV 5 nothing.
    host = mmcv.imfrombytes((folder / 'cut.jpg').read_bytes())
    assert found.readable == (host is not None)


def test_what_only_the_host_cannot_read(folder):
    content = (folder / 'a.png').read_bytes()
    # Pillow does not miss the end of a PNG.
    (folder / 'cut.png').write_bytes(content[:-2])
    found = scan_image(folder / 'cut.png')
    readable = mmcv.imfrombytes(content[:-2]) is not None
    assert (found.readable, found.error) == (readable, '' if readable else HOST_CANNOT)


@pytest.mark.parametrize(
    ('bits', 'kind', 'lost'),
    [
        (12, np.uint16, True),
        (16, np.uint16, False),
        (5, np.uint8, False),
    ],
    ids=['12 of 16 bits', '16 of 16 bits', 'a dark picture of 8 bits'],
)
@pytest.mark.parametrize('shape', [(40, 60), (40, 60, 3)])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_depth_that_the_host_does_not_see(tmp_path, bits, kind, lost, shape, suffix):
    path = tmp_path / f'x{suffix}'
    picture = np.random.default_rng(0).integers(0, 2**bits, shape).astype(kind)
    assert cv2.imwrite(str(path), picture)
    host = mmcv.imfrombytes(path.read_bytes())
    assert scan_image(path).lost_depth == lost == (host.max() < 64 and kind is np.uint16)


@pytest.mark.parametrize('content', [b'', b'no image', b'\xff\xd8\xff\xe0'])
def test_unreadable(tmp_path, content):
    path = tmp_path / 'x.jpg'
    path.write_bytes(content)
    found = scan_image(path)
    assert not found.readable and found.error
    assert not scan_image(tmp_path / 'missing.jpg').readable


def test_many_are_read_once_each(folder):
    steps = []
    paths = [str(folder / name) for name in ('a.png', 'copy.png', 'a.png')]
    scanned = scan_images(paths, lambda: steps.append(1))
    assert list(scanned) == paths[:2] and len(steps) == 2
    assert scanned[paths[0]] == scan_image(paths[0])
    assert scan_images([]) == {}


def test_interrupt_is_passed_on(folder):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_images([str(folder / 'a.png')] * 3, interrupt)
