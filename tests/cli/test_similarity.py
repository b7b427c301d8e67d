"""What the command says of a tiny head, and what people get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_softpl.__main__ import main
from mmdet_softpl.cli import similarity
from tests.support.tiny_trained import CLASSES, write_trained


@pytest.fixture(scope='module')
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    root = tmp_path_factory.mktemp('project')
    return root, *write_trained(root)


def state_of(checkpoint: str, name: str) -> torch.Tensor:
    loaded = torch.load(checkpoint, weights_only=False)
    return loaded['state_dict'][f'teacher.roi_head.bbox_head.{name}']


def test_table_file_and_comparison(project, tmp_path: Path, capsys) -> None:
    _, config, checkpoint = project
    embeddings = tmp_path / 'embeddings.npy'
    prototypes = state_of(checkpoint, 'prototypes')
    centred = prototypes - prototypes.mean(0)
    np.save(
        embeddings,
        torch.nn.functional.normalize(centred, dim=1) @ torch.linalg.qr(torch.randn(32, 32))[0],
    )
    out = tmp_path / 'out'
    command = ['similarity', config, checkpoint, '--out', str(out), '--json']
    assert main([*command, '--embeddings', str(embeddings)]) == 0
    result = json.loads(capsys.readouterr().out)

    assert [c['name'] for c in result['classes']] == list(CLASSES)
    indices, weights = (state_of(checkpoint, f'similarity_{n}') for n in ('indices', 'weights'))
    for c, entry in enumerate(result['classes']):
        own = {
            CLASSES[j]: w
            for j, w in zip(indices[c].tolist(), weights[c].tolist(), strict=True)
            if j != c and w >= 0.005
        }
        assert {n['name']: n['weight'] for n in entry['neighbours']} == pytest.approx(own)
        spread = weights[c][weights[c] > 0]
        assert entry['effective_neighbours'] == pytest.approx(
            float(torch.exp(-(spread * spread.log()).sum())), rel=1e-4
        )
        assert entry['positives'] == 10
    # All classes have 10 positives: the inflow is the column sum.
    dense = torch.zeros(5, 5).scatter_add(1, indices, weights)
    dense.fill_diagonal_(0)
    flows = [c['inflow'] for c in result['classes']]
    assert flows == pytest.approx((0.1 * dense.sum(0)).tolist(), rel=1e-4)
    # A rotation of the same features puts the neighbours in nearly the same order.
    assert result['comparison']['rank_correlation'] > 0.8
    assert result['file_difference'] == 0
    assert (out / 'similarity.png').stat().st_size > 1000
    assert json.loads((out / 'similarity.json').read_text())['mode'] == 'similarity'
    assert main(command) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert main(['similarity', config, checkpoint, '--from', 'student']) == 0
    printed = capsys.readouterr()
    # The student's head saw nothing.
    assert 'before the first' in printed.err and 'all alike' in printed.out


def test_a_file_that_gives_other_rows_is_an_error(
    project, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config, checkpoint = project
    # No difference is below it.
    monkeypatch.setattr(similarity, 'SAME_ROWS', 0.0)
    for more in ([], ['--json']):
        out = str(tmp_path / ('json' if more else 'text'))
        assert main(['similarity', config, checkpoint, '--out', out, *more]) == 1
        printed = capsys.readouterr()
        assert 'do not use that file' in printed.err and 'the same rows' not in printed.out


def test_cascade_shows_its_last_head(tmp_path: Path, capsys) -> None:
    config, checkpoint = write_trained(tmp_path, 'cascade-mask-rcnn')
    assert main(['similarity', config, checkpoint, '--json', '--neighbours', '1']) == 0
    result = json.loads(capsys.readouterr().out)
    weights = state_of(checkpoint, '2.similarity_weights')
    shown = [c['neighbours'][0]['weight'] for c in result['classes']]
    assert max(shown) <= float(weights.max()) + 1e-6
    assert all(len(c['neighbours']) == 1 for c in result['classes'])


def without(checkpoint: str, target: Path, words: tuple[str, ...]) -> str:
    loaded = torch.load(checkpoint, weights_only=False)
    kept = {k: v for k, v in loaded['state_dict'].items() if not any(w in k for w in words)}
    torch.save(dict(loaded, state_dict=kept), target)
    return str(target)


def test_mistakes_are_named(project, tmp_path: Path, capsys) -> None:
    root, config, checkpoint = project
    plain = without(checkpoint, tmp_path / 'plain.pth', ('prototype', 'similarity'))
    headless = without(checkpoint, tmp_path / 'headless.pth', ('bbox_head',))
    text = Path(config).read_text()
    uniform, other, stock = (tmp_path / f'{n}.py' for n in ('uniform', 'other', 'stock'))
    head = "type='mmdet_softpl.SmoothedCEHead'"
    assert head in text
    uniform.write_text(text.replace(head, f"{head}, smoothing_mode='uniform'"))
    stock.write_text(text.replace(head, "type='Shared2FCBBoxHead'"))
    other.write_text(text.replace('num_classes=5', 'num_classes=7'))
    wrong = tmp_path / 'wrong.npy'
    np.save(wrong, np.zeros((4, 8)))
    text_file = tmp_path / 'text.npy'
    text_file.write_text('1 2 3')
    cut, objects = tmp_path / 'cut.npz', tmp_path / 'objects.npz'
    np.savez(cut, np.zeros((5, 8)))
    cut.write_bytes(cut.read_bytes()[:200])
    np.savez(objects, np.array([None, 'a'], dtype=object))
    for arguments, words in (
        ([checkpoint, config], 'CONFIG comes first'),
        ([config, str(root)], 'no such checkpoint'),
        ([config, plain], 'no prototype_counts'),
        ([config, headless], 'no box head'),
        ([str(uniform), checkpoint], "'uniform'"),
        ([str(stock), checkpoint], 'Shared2FCBBoxHead'),
        ([str(other), checkpoint], '5 classes'),
        ([config, checkpoint, '--embeddings', str(wrong)], '(4, 8)'),
        ([config, checkpoint, '--embeddings', str(text_file)], f"{text_file}' cannot be read"),
        ([config, checkpoint, '--embeddings', str(cut)], f"{cut}' cannot be read"),
        ([config, checkpoint, '--embeddings', str(objects)], f"{objects}' cannot be read"),
        ([config, checkpoint, '--embeddings', 'none.npy'], "--embeddings='none.npy' does not"),
        ([config, checkpoint, '--neighbours', '0'], '--neighbours'),
        ([config, checkpoint, '--out', config], 'is a file'),
    ):
        assert main(['similarity', *arguments]) == 2, arguments
        message = capsys.readouterr().err
        assert words in message, message


@pytest.mark.parametrize('known', [True, False])
def test_which_classes_are_shown_of_many(known: bool, capsys) -> None:
    """A head that reads its similarity counts no positives, so that no inflow is known."""
    classes = [
        dict(
            name=f'class{i}',
            positives=1.0 if known else None,
            neighbours=[],
            itself=0.0,
            effective_neighbours=1.0,
            inflow=float(i) if known else None,
            uniform=False,
        )
        for i in range(101)
    ]
    inflow = 100.0 if known else None
    similarity._print(dict(classes=classes, effective_neighbours=1.0, largest_inflow=inflow))
    printed = capsys.readouterr().out
    which = 'those with the largest inflow' if known else 'the first'
    assert f'30 of 101 classes, {which}.' in printed
    assert ('class100' in printed) == known and ('class29' in printed) != known
