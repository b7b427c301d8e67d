"""Writing of figures: in one step, and the same bytes for the same figure."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from mmdet_softpl.reporting import figure as figure_module
from mmdet_softpl.reporting.figure import PALETTE, new_figure, save_figure, to_numpy


def small_figure():
    figure = new_figure(height=1, width=2)
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def test_writes_into_a_new_folder_and_leaves_nothing_else(tmp_path):
    path = save_figure(small_figure(), tmp_path / 'new' / 'a.png')
    assert Image.open(path).size == (200, 100)
    assert [file.name for file in path.parent.iterdir()] == ['a.png']


def test_same_figure_same_bytes(tmp_path):
    first = save_figure(small_figure(), tmp_path / 'a.png').read_bytes()
    assert save_figure(small_figure(), str(tmp_path / 'b.png')).read_bytes() == first


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    path.write_text('old')
    figure = small_figure()

    def fail(*_, **__):
        raise OSError('disk full')

    monkeypatch.setattr(figure, 'savefig', fail)
    with pytest.raises(OSError, match='disk full'):
        save_figure(figure, path)
    assert path.read_text() == 'old'
    assert len(list(tmp_path.iterdir())) == 1


def test_characters_without_a_font_are_one_warning(tmp_path):
    figure = small_figure()
    figure.axes[0].set_title('\U000f0000\U000f0001 and more')
    with pytest.warns(UserWarning) as caught:
        save_figure(figure, tmp_path / 'a.png')
    assert len(caught) == 1 and 'no installed font' in str(caught[0].message)


def test_other_fonts_are_asked_where_a_text_needs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_module, '_families', lambda: ['DejaVu Sans', 'DejaVu Serif'])
    figure = small_figure()
    plain = figure.axes[0].set_title('plain')
    other = figure.axes[0].set_xlabel('Riß')
    save_figure(figure, tmp_path / 'a.png')
    assert other.get_fontfamily() == ['DejaVu Sans', 'DejaVu Serif']
    assert plain.get_fontfamily() != other.get_fontfamily()


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"a\.bmpp' must end in one of .*png"):
        save_figure(small_figure(), tmp_path / 'a.bmpp')


def test_no_figure_enters_pyplots_state():
    small_figure()
    assert plt.get_fignums() == []


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_to_numpy_takes_every_precision_and_gradients(dtype):
    tensor = torch.tensor([0.5, 1.0], dtype=dtype, requires_grad=True)
    assert to_numpy(tensor).tolist() == [0.5, 1.0]
    assert to_numpy(torch.tensor([3])).dtype == np.int64
    assert to_numpy([True, False]).tolist() == [True, False]


def test_neighbouring_colours_differ_in_lightness_or_hue_for_the_colour_blind():
    # Red-green blindness, roughly: the difference of red and green is lost.
    rgb = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in PALETTE]) / 255
    seen = np.stack([rgb[:, :2] @ [0.4, 0.6], rgb[:, 2]], axis=1)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    assert distance[np.triu_indices(len(PALETTE), 1)].min() > 0.08
