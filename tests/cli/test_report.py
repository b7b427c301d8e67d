"""The report: from logs alone, with a checkpoint, in a real browser, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmdet_softpl.__main__ import main
from mmdet_softpl.cli import report as report_command
from mmdet_softpl.engine import look_at_run
from mmdet_softpl.engine.label_examples import KINDS
from mmdet_softpl.reporting import report_page
from mmdet_softpl.reporting.report_page import ModelFindings
from mmdet_softpl.reporting.run_summary import boost_rows
from tests.support.tiny_report import NAMES, write_run, write_trained_run


class Page(HTMLParser):
    """What tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.bare: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if 'id' in given:
            self.ids.append(str(given['id']))
        for key in ('src', 'href', 'xlink:href'):
            if key in given and tag != 'a':
                self.addresses.append(str(given[key]))
        if tag == 'a':
            self.links.append(str(given['href']))
        if tag == 'img' and not given.get('alt'):
            self.bare.append(tag)
        if re.fullmatch('h[1-6]', tag):
            self.headings.append(tag)


def report(path: Path, *arguments: str) -> int:
    return main(['report', str(path), *arguments])


def test_a_training_that_wrote_down_no_class(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Supervised, by stock hooks: curves are all there is."""
    folder = tmp_path / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    records = [
        dict(loss=2.0, iter=10, step=10),
        {'longtail/segm_AP': 0.1, 'step': 0},
        dict(loss=1.0, iter=20, step=20),
        {'longtail/segm_AP': 0.2, 'step': 0},
    ]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    assert report(tmp_path, '--images', '0', '--json') == 0
    said = json.loads(capsys.readouterr().out)
    assert said['iteration'] == 20 and said['gained'] == []
    assert 'AP' in Path(said['report']).read_text()


def coco_run(path: Path) -> Path:
    """Evaluated by mmdet's ``CocoMetric``, without our hooks."""
    vis = path / '20260101_000000' / 'vis_data'
    vis.mkdir(parents=True)
    records: list[dict] = []
    for i, ap in ((10, 0.125), (20, 0.375)):
        records.append(dict(loss=1.0, iter=i, step=i))
        records.append(
            {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 2 * ap, 'coco/segm_mAP': ap, 'step': 0}
        )
    (vis / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    return path


def test_ap_of_mmdets_coco_metric(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = coco_run(tmp_path / 'run')
    assert report(path, '--images', '0', '--json') == 0
    said = json.loads(capsys.readouterr().out)
    row = said['groups'][0]
    assert (row['before'], row['last'], row['ap50']) == (0.125, 0.375, None)
    text = (path / 'report.html').read_text()
    assert 'Mask AP over iterations; last: model 37.5' in text
    assert '<strong>37.5</strong>' in text
    (line,) = (line for line in said['missing'] if line.startswith('AP'))
    assert 'AP of each class' in line and 'ValidationRecordHook' in line
    # The hook is there, the metric is not.
    start = path / '20260101_000000'
    head = dict(start_iter=0, classes=[], groups=None, supervised_iters=0)
    record = dict(iter=20, parts=dict(model=dict(metrics={'coco/bbox_mAP': 0.25})))
    (start / 'validations.jsonl').write_text(f'{json.dumps(head)}\n{json.dumps(record)}\n')
    assert report(path, '--images', '0', '--json') == 0
    said = json.loads(capsys.readouterr().out)
    assert said['groups'][0]['last'] == 0.25
    (line,) = (line for line in said['missing'] if line.startswith('AP'))
    assert 'LongTailMetric' in line and 'ValidationRecordHook' not in line


def test_validations_without_an_ap_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = coco_run(tmp_path / 'run')
    (scalars,) = path.glob('*/vis_data/scalars.json')
    scalars.write_text(scalars.read_text().replace('bbox_mAP', 'AR@100').replace('segm_m', 'my_'))
    assert report(path, '--images', '0', '--json') == 0
    missing = json.loads(capsys.readouterr().out)['missing']
    (line,) = (line for line in missing if line.startswith('AP'))
    assert line.startswith('AP: the validations have no bbox_AP')


def test_a_training_without_a_labeller_may_have_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert report(coco_run(tmp_path / 'run'), '--images', '0') == 0
    assert 'the training has not ended, or had no labeller' in capsys.readouterr().err


def test_the_bias_check_in_words_goes_by_judged_labels() -> None:
    """40 of 50 labels are of classes that a federated file says nothing about there."""

    def quality(kept: int, judged: int, right: int) -> dict:
        of_all = dict(count=kept, judged=judged, objects=20, recall=right / 20)
        of_all['precision'] = right / judged
        return {f'{p}pseudo_{k}': v for p in ('', 'rare_', 'common_') for k, v in of_all.items()}

    check = SimpleNamespace(plain=quality(30, 5, 4), boosted=quality(50, 10, 6))
    findings = ModelFindings(check=check, judged_on='8 images')
    text = report_page._boost_sentence(boost_rows(check), findings)
    assert text == (
        'On 8 images, judged labels of rare classes went from 5 (4 right) without the boost to 10 '
        '(6 right) with it; those of all other classes changed by +5 (+2 right). Of the 50 labels '
        'of rare classes that are kept with it 40 cannot be judged: the annotations do not say '
        'whether they are right.'
    )
    check = SimpleNamespace(plain=quality(5, 5, 4), boosted=quality(10, 10, 6))
    assert 'cannot' not in report_page._boost_sentence(boost_rows(check), findings)


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='no folder that not even root can write to')
def test_a_folder_nobody_can_write_to_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = write_run(tmp_path / 'run')
    looked = []
    monkeypatch.setattr(report_command, '_look', lambda *given: looked.append(given))
    assert report(path, '--out', '/proc/report.html') == 2
    assert 'nothing can be written to /proc' in capsys.readouterr().err
    assert not looked


def test_from_logs_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_run(tmp_path / 'run')
    assert report(path, '--images', '0', '--json') == 0
    said = json.loads(capsys.readouterr().out)
    assert said['report'] == str(path / 'report.html')
    assert said['iteration'] == 40 and said['finished'] is True
    assert [row['name'] for row in said['gained']] == ['ant']
    assert said['never_labelled'] == ['ant']
    assert said['missing'] == ['Galleries and bias check: left out by --images 0.']
    text = (path / 'report.html').read_text()
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert all(address.startswith(('data:', '#')) for address in page.addresses)
    assert all(link.removeprefix('#') in page.ids for link in page.links)
    assert page.headings[0] == 'h1' and page.headings.count('h1') == 1
    # Names and configs are text, not HTML.
    assert 'bee &lt;b&gt;' in text and 'bee <b>' not in text
    assert '<script>alert' not in text
    for name in NAMES[2:]:
        assert f'<th scope="row">{name}</th>' in text


def test_a_diverged_training_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_run(tmp_path / 'run')
    (scalars,) = path.glob('*/vis_data/scalars.json')
    scalars.write_text(scalars.read_text() + '{"loss": NaN, "iter": 41, "step": 41}\n')
    assert report(path, '--images', '0', '--json') == 0
    said = json.loads(capsys.readouterr().out)
    assert any('iteration 41' in text and 'diverged' in text for text in said['missing'])


def test_of_a_run_that_has_only_begun(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / '20260101_000000').mkdir()
    assert report(tmp_path) == 0
    output = capsys.readouterr()
    assert output.out.strip() == str(tmp_path / 'report.html')
    for part in ('Losses', 'AP:', 'Pseudo-labels over time', 'audit', 'no checkpoint yet'):
        assert part in output.err
    text = (tmp_path / 'report.html').read_text()
    assert 'Not in this report' in text and 'id="curves"' not in text


def test_a_checkpoint_without_its_data_still_gives_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write_run(tmp_path / 'run')
    (path / 'iter_40.pth').write_bytes(b'no checkpoint')
    assert report(path) == 0
    assert 'Galleries and bias check: ' in capsys.readouterr().err
    assert (path / 'report.html').is_file()
    # Asked for by name, the same is an error, and the old page stays.
    before = (path / 'report.html').read_bytes()
    assert report(path, '--checkpoint', str(path / 'iter_40.pth')) == 2
    assert (path / 'report.html').read_bytes() == before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--images', '-1'], '--images must be at least 0'),
        (['--checkpoint', 'nothing.pth'], '--checkpoint nothing.pth'),
        (['--hidden-ann-file', 'nothing.json'], '--hidden-ann-file nothing.json'),
        (['--out', '.'], 'is a folder'),
        (['--out', 'nowhere/a.html'], 'there is no folder nowhere'),
        (['--out', 'a.pdf'], 'ends in .html'),
    ],
)
def test_bad_arguments_write_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_run(tmp_path / 'run')
    before = sorted(tmp_path.rglob('*'))
    assert report(path, *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob('*')) == before


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work directory of ``write_trained_run``."""
    monkeypatch.chdir(tmp_path)
    return write_trained_run(tmp_path / 'work')


def test_with_a_checkpoint(trained: Path, capsys: pytest.CaptureFixture) -> None:
    hidden = trained / 'data' / 'annotations' / 'hidden_unlabeled.json'
    for arguments, judged in (
        ([], '4 validation images'),
        (['--hidden-ann-file', str(hidden)], '4 unlabelled images'),
    ):
        assert report(trained, '--images', '4', '--device', 'cpu', '--json', *arguments) == 0
        said = json.loads(capsys.readouterr().out)
        assert set(said['galleries']) <= set(KINDS)
        assert 0 < said['galleries']['confident'] <= 4, 'one an image'
        (everything, *groups) = said['boost_check']
        assert everything['boosted_kept'] > 0 and len(groups) == 3
        assert 0 < everything['boosted_judged'] <= everything['boosted_kept']
        for key in ('boosted_kept', 'plain_kept', 'more_kept', 'boosted_judged', 'plain_judged'):
            assert everything[key] == sum(row[key] for row in groups)
        boosted = next(row for row in said['classes'] if row['judged_kept'] is not None)
        assert boosted['plain_kept'] is not None
        assert boosted['judged'] <= boosted['judged_kept']
        text = (trained / 'report.html').read_text()
        assert judged in text
        page = Page(text)
        assert not page.bare and text.count('data:image/webp') == sum(said['galleries'].values())
        assert not any('Galleries' in line or 'Bias' in line for line in said['missing'])


def test_an_older_trainings_checkpoint_shows_nothing_of_this_one(
    trained: Path, capsys: pytest.CaptureFixture
) -> None:
    """Begun again in the same folder, and looked at before the first checkpoint."""
    (path,) = trained.glob('iter_*.pth')
    (vis,) = trained.glob('*/vis_data')
    (vis / 'scalars.json').write_text('{"loss": 1.0, "iter": 1, "step": 1}\n')
    content = torch.load(path, weights_only=False)
    for stamp, shown in (('20000101_000000', False), ('29990101_000000', True)):
        content.setdefault('meta', {})['experiment_name'] = f'parts_{stamp}'
        torch.save(content, path)
        assert report(trained, '--images', '4', '--device', 'cpu', '--json') == 0
        said = json.loads(capsys.readouterr().out)
        told = [line for line in said['missing'] if 'older training' in line]
        assert bool(said['galleries']) == shown and bool(told) != shown
        if told:
            assert f'{path} is of an older' in told[0] and f'start {stamp}' in told[0]
    assert report(trained, '--images', '4', '--device', 'cpu', '--checkpoint', str(path)) == 0


@pytest.mark.parametrize(
    'error',
    [
        torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'),
        RuntimeError('CUDA error: out of memory'),
    ],
)
def test_a_full_gpu_still_gives_a_page(
    error: RuntimeError,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(look_at_run, 'RunModel', full)
    path = write_run(tmp_path / 'run')
    (path / 'iter_40.pth').touch()
    # Also where the checkpoint was asked for by name: nothing is wrong with it.
    assert report(path, '--checkpoint', str(path / 'iter_40.pth')) == 0
    said = capsys.readouterr().err
    assert 'Galleries and bias check: the GPU has too little free memory; give --device cpu' in said
    assert (path / 'report.html').is_file()


def test_other_errors_of_torch_are_not_hidden() -> None:
    def wrong() -> None:
        raise RuntimeError('shape mismatch')

    with pytest.raises(RuntimeError, match='shape'):
        look_at_run.attempt(wrong, 'Galleries', [])


def test_hidden_labels_of_a_folder_go_by_file(trained: Path, capsys: pytest.CaptureFixture) -> None:
    """A folder has no ids: the json's, from 1 and in another order, must not matter."""
    hidden = trained / 'data' / 'annotations' / 'hidden_unlabeled.json'
    # With 3 of 8 pictures, wrong ones would show as another number of objects.
    arguments = ('--images', '3', '--device', 'cpu', '--json', '--hidden-ann-file')
    assert report(trained, *arguments, str(hidden)) == 0
    of_json = json.loads(capsys.readouterr().out)['boost_check']
    assert of_json[0]['objects'] > 0 and of_json[0]['boosted_kept'] > 0

    config = trained / '20260101_000000' / 'vis_data' / 'config.py'
    cfg = Config.fromfile(config)
    leaf = cfg.train_dataloader.dataset.datasets[1]
    assert leaf.pop('ann_file')
    # As in the shipped configs: unlabelled images need no classes.
    leaf.pop('metainfo', None)
    cfg.dump(config)
    labels = json.loads(hidden.read_text())
    labels['images'].reverse()
    ids = {image['id']: position for position, image in enumerate(labels['images'], start=1)}
    for image in labels['images']:
        image['id'] = ids[image['id']]
    for annotation in labels['annotations']:
        annotation['image_id'] = ids[annotation['image_id']]
    reordered = trained / 'reordered.json'
    reordered.write_text(json.dumps(labels))
    assert report(trained, *arguments, str(reordered)) == 0
    of_folder = json.loads(capsys.readouterr().out)['boost_check']
    assert of_folder == of_json

    gone = labels['images'].pop()['file_name']
    reordered.write_text(json.dumps(labels))
    assert report(trained, *arguments, str(reordered)) == 2
    error = capsys.readouterr().err
    assert f'{reordered}: images lacks 1 of the 3' in error and gone in error


def test_from_another_folder_the_data_are_missed(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(trained / 'data')
    assert report(trained, '--images', '4', '--device', 'cpu') == 0
    error = capsys.readouterr().err
    assert 'Galleries: ' in error and 'Bias check: ' in error
    assert (trained / 'report.html').is_file()
