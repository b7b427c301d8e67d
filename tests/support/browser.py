"""A page in a headless Chromium, as a visitor sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason='no chromium (apt-get install chromium)'
)

# Runs in the page when it has loaded, before it is used: BODY fills `found`.
PROBE = """<script>
const errors = [];
addEventListener('error', (event) => errors.push(event.message ?? event.target.outerHTML), true);
addEventListener('securitypolicyviolation', (event) => errors.push(event.blockedURI));
addEventListener('load', () => {
  const found = {
    width: innerWidth, content: document.documentElement.scrollWidth,
    images: document.images.length,
    broken: Array.from(document.images).filter((image) => !image.naturalWidth).length,
  };
  BODY
  found.errors = errors;
  const pre = document.createElement('pre');
  pre.textContent = `PROBE${JSON.stringify(found)}EBORP`;
  document.body.append(pre);
});
</script>"""
# A frame is as wide as it is told to be; a window may have a least width.
FRAME = """<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe><script>
addEventListener('load', () => setTimeout(() => {{
  document.title = 'x';
  document.body.append(frames[0].document.body.lastChild.textContent);
}}, 50));
</script>"""


def visit(page: Path, width: int, folder: Path, script: str = '') -> dict[str, Any]:
    """Open a page and look at it.

    Args:
        page: An HTML file.
        width: Of the window, in CSS pixels.
        folder: Where the browser may write.
        script: JavaScript that puts what it finds into the object ``found``.

    Returns:
        ``width`` and ``content`` (of window and content, in CSS pixels), ``images`` and
        ``broken`` (how many), ``errors`` (of scripts, images and the security policy, and what the
        console says), and what ``script`` found.
    """
    probe = PROBE.replace('BODY', script)
    (folder / 'page.html').write_text(page.read_text().replace('<head>', f'<head>{probe}', 1))
    frame = folder / 'frame.html'
    frame.write_text(FRAME.format(width=width))
    process = subprocess.run(
        [
            str(CHROMIUM),
            *('--headless', '--no-sandbox', '--disable-gpu', '--no-first-run'),
            *('--disable-background-networking', '--allow-file-access-from-files'),
            *(f'--user-data-dir={folder / "profile"}', '--virtual-time-budget=5000'),
            *('--window-size=1400,900', '--enable-logging=stderr', '--dump-dom'),
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )
    match = re.search('PROBE(.*?)EBORP', process.stdout)
    assert match, process.stderr[-2000:]
    found = json.loads(match[1].replace('&gt;', '>').replace('&lt;', '<').replace('&amp;', '&'))
    found['errors'] += [line for line in process.stderr.splitlines() if 'CONSOLE' in line]
    return found
