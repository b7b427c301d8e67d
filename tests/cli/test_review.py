"""The whole way of a review with a tiny teacher, and what people get wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmdet_softpl.__main__ import main
from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.datasets.review_masks import decode_mask
from mmdet_softpl.engine import part_folder, review_labels
from tests.support.tiny_trained import CLASSES, write_trained

EXPORT = ['--hours', '1', '--min-confidence', '0', '--device', 'cpu', '--batch-size', '3']


@pytest.fixture(scope='module')
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    root = tmp_path_factory.mktemp('project')
    return root, *write_trained(root)


@pytest.fixture(scope='module')
def exported(project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, config, checkpoint = project
    out = tmp_path_factory.mktemp('exports') / 'review'
    assert main(['review', 'export', config, checkpoint, '--out', str(out), *EXPORT]) == 0
    return out


def test_the_export_is_whole_and_within_the_budget(exported: Path, project) -> None:
    manifest = json.loads((exported / 'manifest.json').read_text())
    content = json.loads((exported / 'annotations.json').read_text())
    check_annotations(exported / 'annotations.json', image_root=exported / 'images')
    labels = sum(len(image['objects']) for image in manifest['images'])
    assert labels == len(content['annotations']) > 0
    assert manifest['seconds'] == 79 * labels <= 3600
    assert manifest['classes'] == list(CLASSES)
    names = [image['file'] for image in manifest['images']]
    assert sorted(names) == sorted(p.name for p in (exported / 'images').iterdir())
    assert {i['file_name'] for i in content['images']} == set(names)
    for image in manifest['images']:
        source = project[0] / 'unlabeled2017' / image['file']
        assert source.read_bytes() == (exported / 'images' / image['file']).read_bytes()
        assert (project[0] / 'train2017' / image['labeled_file_name']).resolve() == source
        for entry in image['objects']:
            ys, xs = np.nonzero(decode_mask(entry['rle']))
            x, y, w, h = entry['bbox']
            # The mask lies in its box, in pixels of the original image.
            assert x - 1 <= xs.min() and xs.max() <= x + w + 1
            assert y - 1 <= ys.min() and ys.max() <= y + h + 1
            assert 0 <= entry['disagreement'] <= 1 and entry['gain'] > 0


def test_import_merges_and_takes_the_images_out_of_the_unlabelled(
    exported: Path, tmp_path: Path, capsys
) -> None:
    files = [str(tmp_path / name) for name in ('merged.json', 'rest.json')]
    command = ['review', 'import', str(exported), str(exported / 'annotations.json')]
    command += ['--out', files[0], '--unlabeled-out', files[1], '--json']
    assert main(command) == 2
    assert '--reviewed' in capsys.readouterr().err
    assert not Path(files[0]).exists()
    # One image by its name first, then all.
    manifest = json.loads((exported / 'manifest.json').read_text())
    names = [image['file'] for image in manifest['images']]
    # As Notepad saves it.
    (tmp_path / 'done.txt').write_text(f'{names[0]}\r\n', encoding='utf-8-sig')
    assert main([*command, '--reviewed', str(tmp_path / 'done.txt')]) == 0
    assert json.loads(capsys.readouterr().out)['left_out'] == names[1:]
    assert main([*command, '--reviewed', 'all']) == 2
    assert 'exists' in capsys.readouterr().err
    assert main([*command, '--reviewed', 'all', '--overwrite']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['images'] == len(names) and summary['deleted'] == {}
    root = Path(manifest['labeled_file']).parents[1]
    check_annotations(files[0], image_root=root / 'train2017')
    rest = json.loads(Path(files[1]).read_text())
    left = {p.name for p in (root / 'unlabeled2017').iterdir()} - set(names)
    assert {image['file_name'] for image in rest['images']} == left


def test_a_json_without_a_label_is_doubted(exported: Path, tmp_path: Path, capsys) -> None:
    empty = json.loads((exported / 'annotations.json').read_text())
    empty['annotations'] = []
    (tmp_path / 'empty.json').write_text(json.dumps(empty))
    command = ['review', 'import', str(exported), str(tmp_path / 'empty.json'), '--reviewed', 'all']
    assert main([*command, '--out', str(tmp_path / 'merged.json'), '--json']) == 0
    printed = capsys.readouterr()
    assert 'every pseudo-label was deleted' in printed.err
    assert sum(json.loads(printed.out)['deleted'].values()) > 0
    # Objects that are all somewhere else are no objects left out.
    moved = json.loads((exported / 'annotations.json').read_text())
    for annotation in moved['annotations']:
        annotation['segmentation'] = [[0, 0, 2, 0, 2, 1, 0, 1]]
    (tmp_path / 'empty.json').write_text(json.dumps(moved))
    assert main([*command, '--out', str(tmp_path / 'moved.json')]) == 0
    error = capsys.readouterr().err
    assert 'deleted, and' in error and 'were the images resized' in error
    assert 'exported with its annotations' not in error


def test_label_studio_tasks_nobody_submitted_change_nothing(
    project, exported: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / 'review'
    shutil.copytree(exported, out)
    _, config, checkpoint = project
    command = ['review', 'export', config, checkpoint, '--out', str(out), *EXPORT]
    assert main([*command, '--format', 'label-studio']) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert main([*command, '--format', 'label-studio', '--overwrite', '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    tasks = json.loads((out / 'tasks.json').read_text())
    assert len(tasks) == summary['images'] > 0
    merged = tmp_path / 'merged.json'
    back = ['review', 'import', str(out), str(out / 'tasks.json'), '--out', str(merged)]
    assert main(back) == 1
    assert 'nothing was written' in capsys.readouterr().err
    assert not merged.exists()


def test_an_export_without_a_choice_is_made_up_for(
    project, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _, config, checkpoint = project
    out = tmp_path / 'out'
    command = ['review', 'export', config, checkpoint, '--out', str(out), *EXPORT]
    assert main([*command, '--hours', '0.0001']) == 1
    assert 'nothing was chosen' in capsys.readouterr().err
    assert not (out / 'manifest.json').exists() and not (out / 'annotations.json').exists()
    assert main(command) == 0
    assert (out / 'manifest.json').exists()


def test_an_interrupted_export_goes_on(
    project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the first part: the second call labels the rest alone, with the same end."""
    _, config, checkpoint = project
    monkeypatch.setattr(part_folder, 'PART_SIZE', 2)
    label, calls = review_labels._label_batch, []

    def counted(*args):
        calls.append(args[2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return label(*args)

    monkeypatch.setattr(review_labels, '_label_batch', counted)
    ends = []
    for name in ('a', 'b'):
        out = tmp_path / name
        command = ['review', 'export', config, checkpoint, '--out', str(out), *EXPORT]
        if name == 'a':
            assert main(command) == 130
            assert not (out / 'manifest.json').exists()
            done = len(calls)
        assert main(command) == 0
        if name == 'a':
            assert [list(r) for r in calls[done:]] == [[2, 3]]
        ends.append((out / 'annotations.json').read_text())
    assert ends[0] == ends[1]


def test_an_interrupted_overwrite_leaves_nothing_to_import(
    project, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'review'
    shutil.copytree(exported, out)
    _, config, checkpoint = project
    command = ['review', 'export', config, checkpoint, '--out', str(out), *EXPORT]
    command += ['--min-confidence', '0.1', '--overwrite']
    label = review_labels._label_batch

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(review_labels, '_label_batch', interrupted)
    assert main(command) == 130
    assert not (out / 'manifest.json').exists()
    # Also after a stop between removing the old labels and the first new ones.
    shutil.rmtree(out / 'labels')
    command[command.index('0.1')] = '0.2'
    monkeypatch.setattr(review_labels, '_label_batch', label)
    assert main(command) in (0, 1)
    assert (out / 'manifest.json').exists()


def test_an_overwrite_takes_the_other_formats_files_away(
    project, exported: Path, tmp_path: Path
) -> None:
    """They name images that are no longer in the folder."""
    out = tmp_path / 'review'
    shutil.copytree(exported, out)
    _, config, checkpoint = project
    command = ['review', 'export', config, checkpoint, '--out', str(out), *EXPORT, '--overwrite']
    label_studio = {'tasks.json', 'labeling_config.xml'}
    for more, there in ((['--format', 'label-studio'], label_studio), ([], {'annotations.json'})):
        assert main([*command, *more]) == 0
        found = {path.name for path in out.iterdir()} & (label_studio | {'annotations.json'})
        assert found == there


def test_labels_of_another_image_size_are_not_taken(
    project, exported: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / 'review'
    shutil.copytree(exported, out)
    (out / 'manifest.json').unlink()
    _, config, checkpoint = project
    cfg = Config.fromfile(config)
    (resize,) = (s for s in cfg.val_dataloader.dataset.pipeline if s['type'] == 'Resize')
    assert resize['scale'] == (96, 96)
    resize['scale'] = (64, 64)
    other = tmp_path / 'other.py'
    cfg.dump(other)
    command = ['review', 'export', str(other), checkpoint, '--out', str(out), *EXPORT]
    assert main(command) == 2
    assert 'are of another checkpoint, config' in capsys.readouterr().err


def test_labels_that_are_not_all_there_are_refused(exported: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'review'
    shutil.copytree(exported, out)
    part = out / 'labels' / 'part-0000000.json'
    part.write_text(json.dumps(json.loads(part.read_text())[:-1]))
    files = [tmp_path / name for name in ('merged.json', 'rest.json')]
    command = ['review', 'import', str(out), str(out / 'annotations.json'), '--reviewed', 'all']
    command += ['--out', str(files[0])]
    assert main([*command, '--unlabeled-out', str(files[1])]) == 2
    message = capsys.readouterr().err
    assert str(out / 'labels.json') in message and 'images=4' in message
    assert not any(path.exists() for path in files)
    # What was chosen is whole: only the rest cannot be told.
    assert main(command) == 0


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda c, k, d: (k, c), ['CONFIG comes first']),
        (lambda c, k, d: (c, c), ['a config, not a checkpoint']),
        (lambda c, k, d: (c, 'none.pth'), ['none.pth', 'no such checkpoint']),
        (lambda c, k, d: ('none.py', k), ['none.py', 'no such config']),
        (
            lambda c, k, d: (c, d + '/annotations/instances_train2017.json'),
            ['not a checkpoint of PyTorch'],
        ),
        (lambda c, k, d: (c, k, '--hours', '0'), ['--hours', '0']),
        (lambda c, k, d: (c, k, '--min-confidence', '20'), ['--min-confidence', '20']),
        (lambda c, k, d: (c, k, '--images', d + '/nowhere'), ['nowhere', 'does not exist']),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    change, words: list[str], project, tmp_path: Path, capsys
) -> None:
    root, config, checkpoint = project
    given = change(config, checkpoint, str(root))
    out = tmp_path / 'review'
    arguments = ['review', 'export', *given[:2], '--out', str(out), *EXPORT, *given[2:]]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not out.exists()


def test_what_people_corrected_is_never_replaced(exported: Path, tmp_path: Path, capsys) -> None:
    review, corrected = tmp_path / 'review', tmp_path / 'corrected.json'
    shutil.copytree(exported, review)
    shutil.copy(review / 'annotations.json', corrected)
    before = {p: p.read_bytes() for p in [corrected, *review.iterdir()] if p.is_file()}
    command = ['review', 'import', str(review), str(corrected), '--reviewed', 'all', '--overwrite']
    for path in before:
        assert main([*command, '--out', str(path)]) == 2
        assert f'{path} is what people corrected' in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_wrong_list_of_reviewed_images(exported: Path, tmp_path: Path, capsys) -> None:
    command = ['review', 'import', str(exported), str(exported / 'annotations.json')]
    command += ['--out', str(tmp_path / 'merged.json'), '--reviewed']
    picture, line = tmp_path / 'a.jpg', tmp_path / 'a.json'
    picture.write_bytes(b'\xff\xd8\xff')
    line.write_text('{"images": [' + '1, ' * 9000 + '1]}')
    for path, words in ((picture, 'no text'), (line, '1 of 1 lines are no image of')):
        assert main([*command, str(path)]) == 2
        message = capsys.readouterr().err
        assert f'--reviewed {path}' in message and words in message and len(message) < 500


def test_reviewed_images_by_the_paths_of_windows(exported: Path, tmp_path: Path, capsys) -> None:
    name = json.loads((exported / 'manifest.json').read_text())['images'][0]['file']
    (tmp_path / 'done.txt').write_text(f'C:\\review1\\images\\{name}\r\n')
    command = ['review', 'import', str(exported), str(exported / 'annotations.json'), '--json']
    command += ['--out', str(tmp_path / 'a.json'), '--reviewed', str(tmp_path / 'done.txt')]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)['images'] == 1


def test_a_broken_manifest_is_named(exported: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / 'review').mkdir()
    (tmp_path / 'review' / 'manifest.json').write_text('{"a" 1}')
    command = ['review', 'import', str(tmp_path / 'review'), str(exported / 'annotations.json')]
    assert main([*command, '--out', str(tmp_path / 'a.json'), '--reviewed', 'all']) == 2
    assert f'{tmp_path}/review/manifest.json: not a json file' in capsys.readouterr().err


def test_labelled_images_are_not_reviewed(project, tmp_path: Path, capsys) -> None:
    """As where all images are in one folder."""
    root, config, checkpoint = project
    folder = tmp_path / 'all'
    folder.mkdir()
    for source in (*(root / 'train2017').iterdir(), *(root / 'unlabeled2017').iterdir()):
        (folder / source.name).symlink_to(source.resolve())
    command = ['review', 'export', config, checkpoint, '--images', str(folder), '--json']
    assert main([*command, '--out', str(tmp_path / 'out'), *EXPORT]) == 0
    summary = json.loads(capsys.readouterr().out)
    names = {i['file'] for i in json.loads((tmp_path / 'out/manifest.json').read_text())['images']}
    labelled = {path.name for path in (root / 'train2017').iterdir()}
    assert names and not names & labelled
    (warning,) = (w for w in summary['warnings'] if 'labelled already' in w)
    assert warning.startswith(f'{len(labelled)} of {summary["images_seen"]} images')


def test_a_folder_of_other_files_is_left_alone(project, tmp_path: Path, capsys) -> None:
    _, config, checkpoint = project
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'mine.jpg').write_text('a picture')
    for more in ([], ['--overwrite']):
        command = ['review', 'export', config, checkpoint, '--hours', '1', '--out', str(tmp_path)]
        assert main([*command, *more]) == 2
        assert 'the folder holds other files' in capsys.readouterr().err
        assert [p.name for p in tmp_path.rglob('*')] == ['images', 'mine.jpg']
    # Files that others call so, too.
    for name, content in (('labels.json', '{"images": []}'), ('manifest.json', '[]')):
        (tmp_path / name).write_text(content)
        assert main([*command, '--overwrite']) == 2
        assert 'the folder holds other files' in capsys.readouterr().err
        assert (tmp_path / name).read_text() == content
    assert (tmp_path / 'images' / 'mine.jpg').is_file()


def test_a_second_import_keeps_the_first(exported: Path, tmp_path: Path, capsys) -> None:
    names = [i['file'] for i in json.loads((exported / 'manifest.json').read_text())['images']]
    first, second, others = names[:1], names[1:3], names[3:]
    files = [str(tmp_path / name) for name in ('one.json', 'rest1.json', 'two.json', 'rest2.json')]

    def command(reviewed: list[str], out: str, rest: str, *more: str) -> list[str]:
        (tmp_path / 'done.txt').write_text('\n'.join(reviewed))
        base = ['review', 'import', str(exported), str(exported / 'annotations.json')]
        return [
            *base, '--reviewed', str(tmp_path / 'done.txt'), '--out', out, '--unlabeled-out', rest,
            *more,
        ]  # fmt: skip

    assert main(command(first, *files[:2])) == 0
    assert main(command(second, *files[2:], '--labeled', files[0])) == 0
    labelled = {i['file_name'] for i in json.loads(Path(files[2]).read_text())['images']}
    assert all(any(name in file for file in labelled) for name in first + second)
    rest = {i['file_name'] for i in json.loads(Path(files[3]).read_text())['images']}
    assert rest == set(others) != set()
    # Without --labeled it starts from the labelled json of the export, and would lose the first.
    before = Path(files[0]).read_bytes()
    capsys.readouterr()
    assert main(command(second, files[0], str(tmp_path / 'rest3.json'), '--overwrite')) == 2
    assert f'give --labeled {files[0]}' in capsys.readouterr().err
    assert Path(files[0]).read_bytes() == before


def test_nothing_but_json_on_standard_output(
    project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """pycocotools prints while it reads annotations."""
    from mmdet_softpl.engine import review_export

    original = review_export.load_teacher
    monkeypatch.setattr(
        review_export, 'load_teacher', lambda *args: print('loading...') or original(*args)
    )
    out = str(tmp_path / 'review')
    assert main(['review', 'export', *project[1:], '--out', out, *EXPORT, '--json']) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)['out'] == out and 'loading...' in printed.err


def test_import_arguments_the_wrong_way_round(exported: Path, tmp_path: Path, capsys) -> None:
    corrected = str(exported / 'annotations.json')
    out = str(tmp_path / 'merged.json')
    assert main(['review', 'import', corrected, str(exported), '--out', out]) == 2
    assert 'first, the corrected file second' in capsys.readouterr().err
    assert main(['review', 'import', str(tmp_path), corrected, '--out', out]) == 2
    assert 'manifest.json' in capsys.readouterr().err
    assert main(['review', 'import', str(exported), corrected, '--out', 'no/where.json']) == 2
    assert 'no' in capsys.readouterr().err
    command = ['review', 'import', str(exported), corrected, '--reviewed', 'all', '--out', out]
    (tmp_path / 'link').symlink_to(tmp_path)
    for same in (out, str(tmp_path / 'link' / 'merged.json')):
        assert main([*command, '--unlabeled-out', same]) == 2
        assert 'the same file' in capsys.readouterr().err
        assert not Path(out).exists()


def test_a_checkpoint_of_other_classes_is_named(project, tmp_path: Path, capsys) -> None:
    import torch

    _, config, checkpoint = project
    loaded = torch.load(checkpoint, weights_only=False)
    state = loaded['state_dict']
    for key in list(state):
        if key.endswith('bbox_head.fc_cls.weight') or key.endswith('bbox_head.fc_cls.bias'):
            state[key] = state[key][:4]
    other = tmp_path / 'other.pth'
    torch.save(loaded, other)
    out = tmp_path / 'review'
    assert main(['review', 'export', config, str(other), '--out', str(out), *EXPORT]) == 2
    assert '3 classes' in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        'import sys; from mmdet_softpl.__main__ import main\n'
        'try: main(["review", "export", "--help"])\n'
        'except SystemExit: pass\n'
        'assert "torch" not in sys.modules'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'example' in done.stdout


def test_the_rest_replaces_no_labels(exported: Path, tmp_path: Path, capsys) -> None:
    labelled, other = tmp_path / 'labelled.json', tmp_path / 'other.json'
    source = json.loads((exported / 'manifest.json').read_text())['labeled_file']
    for path in (labelled, other):
        shutil.copy(source, path)
    (tmp_path / 'link.json').symlink_to(labelled)
    before = labelled.read_bytes()
    merged, rest = tmp_path / 'merged.json', tmp_path / 'rest.json'
    command = ['review', 'import', str(exported), str(exported / 'annotations.json')]
    command += ['--reviewed', 'all', '--overwrite', '--labeled', str(labelled)]
    command += ['--out', str(merged), '--unlabeled-out']
    for path, words in (
        (labelled, 'is the labelled json'),
        (tmp_path / 'link.json', 'is the labelled json'),
        (other, 'annotations, which would be lost'),
    ):
        assert main([*command, str(path)]) == 2
        message = capsys.readouterr().err
        assert f'--unlabeled-out {path}' in message and words in message
    assert labelled.read_bytes() == other.read_bytes() == before and not merged.exists()
    # The rest of an earlier import, and what is no json, may go.
    for text in (None, 'no json'):
        if text is not None:
            rest.write_text(text)
        assert main([*command, str(rest)]) == 0
    assert main([*command, str(rest)]) == 0
