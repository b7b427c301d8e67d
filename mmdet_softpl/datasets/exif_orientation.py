"""How a camera was held, as far as the host's decoder asks."""

from __future__ import annotations

from PIL import Image

TAG = 0x0112


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none.

    Pillow also takes one from XMP, which OpenCV does not read.

    Raises:
        SyntaxError, ValueError, EOFError, OSError: What Pillow raises on damaged data.
    """
    # Where it stands elsewhere than in the header, Pillow finds it when asked.
    image.getexif()
    exif = Image.Exif()
    exif.load(image.info.get('exif', b''))
    return exif.get(TAG, 1)
