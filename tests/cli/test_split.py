"""The split command: its files, its table, its json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mmdet_softpl.cli import split


@pytest.fixture()
def ann_file(tmp_path):
    images = [{'id': i, 'file_name': f'{i}.jpg', 'height': 9, 'width': 9} for i in range(20)]
    annotations = [
        {'id': i, 'image_id': i, 'category_id': 1 + (i == 7), 'bbox': [0, 0, 5, 5], 'area': 25}
        for i in range(20)
    ]
    categories = [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'yak'}]
    path = tmp_path / 'animals.json'
    path.write_text(
        json.dumps({'images': images, 'annotations': annotations, 'categories': categories})
    )
    return path


def _run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    split.add_arguments(parser)
    return split.run(parser.parse_args(argv))


def test_table(ann_file, capsys):
    assert _run(str(ann_file), '--percent', '10') == 0
    out = capsys.readouterr().out
    assert (ann_file.parent / 'animals.1@10.json').exists()
    assert (ann_file.parent / 'animals.1@10-unlabeled.json').exists()
    assert 'yak' in out and 'rare' in out
    assert '2 labelled images (' in out.replace('\n', ' ') and '18 unlabelled images' in out


def test_names_are_no_markup(ann_file, capsys):
    data = json.loads(ann_file.read_text())
    data['categories'][0]['name'] = 'nut [/M6]'
    ann_file.write_text(json.dumps(data))
    assert _run(str(ann_file), '--percent', '10') == 0
    assert 'nut [/M6]' in capsys.readouterr().out


def test_half_a_split_is_none(ann_file, tmp_path, monkeypatch):
    out, calls, plain = tmp_path / 'o', [], Path.write_text

    def full(path, text, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, 'No space left on device')
        return plain(path, text, **kwargs)

    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(OSError, match=r'animals\.1@10\.json and .* cannot be written: No space'):
        _run(str(ann_file), '--percent', '10', '--out', str(out))
    assert not list(out.iterdir())


def test_json(ann_file, tmp_path, capsys):
    out_dir = str(tmp_path / 'o')
    assert _run(str(ann_file), '--count', '4', '--seed', '5', '--out', out_dir, '--json') == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['labeled_file'].endswith('animals.5@4images.json')
    assert summary['num_labeled'] == 4 and summary['num_rest'] == 16
    yak = summary['classes'][1]
    assert yak['name'] == 'yak' and yak['images_before'] == yak['images_after'] == 1


def test_warnings_are_printed(ann_file, capsys):
    data = json.loads(ann_file.read_text())
    data['categories'].append({'id': 3, 'name': 'gnu'})
    ann_file.write_text(json.dumps(data))
    assert _run(str(ann_file), '--percent', '10') == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: {ann_file}: 1 of 3 classes') and 'gnu' in line
    assert _run(str(ann_file), '--percent', '10', '--overwrite', '--json') == 0
    assert 'gnu' in json.loads(capsys.readouterr().out)['warnings'][0]


def test_all_labelled(ann_file, capsys):
    assert _run(str(ann_file), '--percent', '100') == 0
    assert 'no unlabelled file was written' in capsys.readouterr().out


def test_bad_input_is_left_to_the_dispatcher(ann_file):
    with pytest.raises(ValueError, match='percent'):
        _run(str(ann_file), '--percent', '0')
    with pytest.raises(SystemExit):
        _run(str(ann_file))
