"""The report's figures, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmdet_softpl.reporting import run_summary
from mmdet_softpl.reporting.work_dir import WorkDir, read_work_dir
from mmdet_softpl.run_records import append_record, read_records
from tests.support.tiny_report import write_run


@pytest.fixture
def run(tmp_path: Path) -> WorkDir:
    return read_work_dir(write_run(tmp_path / 'run'))


def test_rows_of_classes(run: WorkDir) -> None:
    rows = {row['name']: row for row in run_summary.class_rows(run)}
    ant, bee, dog = rows['ant'], rows['bee <b>'], rows['dog']
    assert (ant['before'], ant['last'], ant['change']) == (0.0, 0.25, 0.25)
    assert bee['change'] == pytest.approx(-0.2)
    assert dog['before'] is None and dog['change'] is None, '-1 is no AP'
    assert (bee['boost'], dog['boost'], ant['kept'], bee['ratio']) == (2.5, 1.0, 0, 2.0)
    assert ant['group'] == 'rare' and dog['group'] == 'frequent'
    assert ant['precision'] is None


def test_gained_lost_and_never_labelled(run: WorkDir) -> None:
    rows = run_summary.class_rows(run)
    gained, lost = run_summary.changes(rows)
    assert [row['name'] for row in gained] == ['ant']
    assert [row['name'] for row in lost] == ['bee <b>'], 'a class that stays is neither'
    assert run_summary.never_labelled(rows) == ['ant']
    assert run_summary.changes(rows, count=0) == ([], [])


def test_changes_count_from_the_end_of_the_labelled_part(tmp_path: Path) -> None:
    """What labels alone brought, before the first pseudo-label, is no gain of these."""
    path = write_run(tmp_path / 'run')
    file = path / '20260101_000000' / 'validations.jsonl'
    head, at_20, at_40 = read_records(file)
    untrained = json.loads(json.dumps(at_20))
    untrained['iter'] = 5
    for part in untrained['parts'].values():
        part['class_AP']['segm'] = [0.0] * 4
        part['metrics'] = dict.fromkeys(part['metrics'], 0.0)
    file.unlink()
    for record in (dict(head, supervised_iters=20), untrained, at_20, at_40):
        append_record(file, record)
    run = read_work_dir(path)
    assert run.supervised_iters == 20
    rows = {row['name']: row for row in run_summary.class_rows(run)}
    assert rows['bee <b>']['change'] == pytest.approx(-0.2)
    assert [row['name'] for row in run_summary.changes(list(rows.values()))[1]] == ['bee <b>']
    (rare,) = (
        r for r in run_summary.group_rows(run) if r['part'] == 'teacher' and r['group'] == 'rare'
    )
    assert rare['before'] == 0.02
    assert 'before pseudo-labels (iteration 20)' in run_summary.before_title(run)
    # While labelled images are all there is, the first one is what there is to compare with.
    for supervised, before in ((0, 5), (4, 5), (5, 5), (39, 20), (40, 5), (100, 5)):
        run.supervised_iters = supervised
        found = run_summary.before_and_last(run, run.validations)
        assert [record['iter'] for record in found] == [before, 40], supervised
    assert 'first validation (iteration 5)' in run_summary.before_title(run)


def test_kept_without_an_audit_is_the_mean_over_images(run: WorkDir) -> None:
    run.audit = None
    run.refreshes = [
        dict(images=100, kept_per_image=[1.0, 0, 0, 0]),
        dict(images=300, kept_per_image=[2.0, 4, 0, 0]),
    ]
    assert run_summary.kept_per_image(run) == pytest.approx([1.75, 3, 0, 0])
    run.expected = [0.5, 0, 2, 1]
    np.testing.assert_allclose(run_summary.ratios(run), [[2, 4], [np.nan, np.nan], [0, 0], [0, 0]])


def test_groups_and_series(run: WorkDir) -> None:
    rows = run_summary.group_rows(run)
    rare = next(r for r in rows if r['part'] == 'teacher' and r['group'] == 'rare')
    assert (rare['before'], rare['last']) == (0.02, pytest.approx(0.12))
    assert next(r for r in rows if r['group'] == 'common')['last'] is None
    assert run_summary.metric_series(run, 'student', 'segm_AP') == ([20, 40], [0.1, 0.2])
    assert run_summary.main_part(run) == 'teacher' and run_summary.iou_type(run) == 'segm'


def test_a_single_validation_has_nothing_before_it(run: WorkDir) -> None:
    assert 'unknown' not in run_summary.before_title(run)
    run.validations = run.validations[-1:]
    classes, groups = run_summary.class_rows(run), run_summary.group_rows(run)
    for row in (*classes, *groups):
        assert row['before'] is None and row['change'] is None
    assert classes[0]['last'] == 0.25 and groups[0]['last'] == 0.2
    assert run_summary.before_title(run) == 'unknown, with a single validation (iteration 40)'


def test_ap_as_mmdets_coco_metric_calls_it() -> None:
    metrics = {
        'coco/bbox_mAP': 0.3,
        'coco/bbox_mAP_50': 0.5,
        'coco/bbox_mAP_75': 0.2,
        'coco/segm_mAP': -1.0,
    }
    found = [run_summary.metric_of(dict(metrics=metrics), n) for n in ('bbox_AP', 'bbox_AP50')]
    assert found == [0.3, 0.5]
    assert run_summary.metric_of(dict(metrics=metrics), 'bbox_AP75') == 0.2
    assert run_summary.metric_of(dict(metrics=metrics), 'segm_AP') is None
    assert run_summary.metric_of(dict(metrics=metrics), 'bbox_APr') is None
    # Ours comes first, wherever it stands.
    both = metrics | {'longtail/bbox_AP': 0.4}
    assert run_summary.metric_of(dict(metrics=both), 'bbox_AP') == 0.4


def test_what_the_boost_cost() -> None:
    def quality(count: int, precision: float, recall: float, judged: int | None = None) -> dict:
        judged = count if judged is None else judged
        return {
            'rare_pseudo_judged': judged,
            'pseudo_judged': judged,
            'rare_pseudo_count': count,
            'rare_pseudo_precision': precision,
            'rare_pseudo_recall': recall,
            'rare_pseudo_objects': 20,
            'pseudo_count': count,
            'pseudo_precision': precision,
            'pseudo_recall': recall,
            'pseudo_objects': 20,
        }

    # Without: 4 kept, 3 right. With: 10 kept, 5 right.
    check = SimpleNamespace(plain=quality(4, 0.75, 0.15), boosted=quality(10, 0.5, 0.25))
    everything, rare = run_summary.boost_rows(check)
    assert (everything['group'], rare['group']) == ('all classes', 'rare')
    assert (rare['plain_right'], rare['boosted_right']) == (3, 5)
    assert (rare['more_kept'], rare['more_right'], rare['cost']) == (6, 2, -0.25)
    # Of 4 and 10 kept ones 3 and 4 can be judged, of which 3 and 2 are right.
    check = SimpleNamespace(plain=quality(4, 1.0, 0.15, 3), boosted=quality(10, 0.5, 0.1, 4))
    rare = run_summary.boost_rows(check)[1]
    assert (rare['plain_judged'], rare['boosted_judged'], rare['more_judged']) == (3, 4, 1)
    assert (rare['boosted_right'], rare['cost']) == (2, -0.5)
    # Nothing kept: no precision, no cost.
    check = SimpleNamespace(plain=quality(0, float('nan'), 0.0), boosted=quality(1, 1.0, 0.05))
    assert run_summary.boost_rows(check)[1]['cost'] is None


def test_of_a_run_without_anything(tmp_path: Path) -> None:
    run = WorkDir(tmp_path)
    assert run_summary.class_rows(run) == [] and run_summary.group_rows(run) == []
    assert run_summary.main_part(run) is None and run_summary.kept_per_image(run) is None
