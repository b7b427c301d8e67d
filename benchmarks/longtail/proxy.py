"""Does the proxy of ``softpl tune`` rank the arms as their trainings do?

`python -m benchmarks.longtail.proxy --arm 7-shipped --seed 2`, after runs of that seed: the teacher
at the end of the burn-in looks at the split `tune`, labels it as the arm and its variations would,
and the proxy of these labels stands beside what their trainings came to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet_softpl.progress import Progress

from .arms import ARMS, FULL_METHOD, SHIPPED, arm_config, placed
from .job import Job
from .knobs import KNOBS
from .presets import PRESETS, Preset
from .results import Table

HERE = Path(__file__).resolve().parent
SPLIT = 'tune'
# The proxy and what it is made of, as `labelling_proxy` and as the table call them.
COLUMNS = dict(proxy='proxy', likelihood='likelihood', learned_f1='F1')
# Knobs of the detector that a replay of labels sees, as it does those of the labeller.
REPLAYED = ('label_temperature', 'mirror')


def _variations(arm: str) -> tuple[str, ...]:
    """The arm, and what is it with one knob turned that a replay sees."""
    knobs = KNOBS[arm]
    return (
        arm,
        *(
            name
            for name, other in ARMS.items()
            if other.knob
            and other.previous == arm
            and (knobs[other.knob[0]].owner == 'labeler' or other.knob[0] in REPLAYED)
        ),
    )


# By an arm whose burn-in they share. The others have hard labels, or differ in what no replay of
# labels can see.
ARMS_TO_RANK = {
    FULL_METHOD: ('5', '5v', '6a', '6', '7-defaults', '7-tuned-kept', *_variations(FULL_METHOD)),
    SHIPPED: (*_variations(SHIPPED), '7-shipped-tuned'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table.

    Returns:
        0; 2 where there is no burn-in, or no arm to rank.
    """
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.longtail.proxy', description=__doc__.splitlines()[0]
    )
    parser.add_argument('--preset', choices=PRESETS, default='cpu')
    parser.add_argument(
        '--arm', choices=ARMS_TO_RANK, default=FULL_METHOD, help='whose burn-in and variations'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='folder of the runs')
    parser.add_argument('--data', type=Path, help='folder of the pictures')
    parser.add_argument(
        '--results', type=Path, default=HERE, help='folder of results.json (default: beside this)'
    )
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    out = (args.out or Path('work_dirs') / 'longtail' / preset.name).resolve()
    data_root = (args.data or out / 'data').resolve()
    burn_in = Job(args.arm, args.seed, 'burn-in').folder(out) / 'final.pth'
    if not burn_in.is_file():
        print(f'error: {burn_in} does not exist; run arm {args.arm} first.', file=sys.stderr)
        return 2
    table = Table(json.loads((args.results / 'results.json').read_text()), preset.name)
    trained = {
        arm: tuple(
            table.by_seed(arm, split, metric).get(args.seed)
            for split in ('tune', 'test')
            for metric in ('segm_AP', 'segm_APr')
        )
        for arm in ARMS_TO_RANK[args.arm]
    }
    # Settings are tried on `tune`: some arms have not seen `test`.
    trained = {arm: values for arm, values in trained.items() if None not in values[:2]}
    if not trained:
        print(f'error: no arm of {args.results}/results.json to rank.', file=sys.stderr)
        return 2
    # Standard output is for the table; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        found = proxies(list(trained), preset, args.seed, burn_in, data_root, out / 'dumps')
    print(_markdown(found, trained))
    return 0


def proxies(
    arms: Sequence[str],
    preset: Preset,
    seed: int,
    checkpoint: Path,
    data_root: Path,
    dumps: Path,
) -> dict[str, dict[str, float]]:
    """Arm to the values of :func:`.labelling_proxy` for the labels that its settings make.

    Args:
        arms: Names.
        preset: Of the benchmark.
        seed: Of the runs.
        checkpoint: The teacher's, of the shared burn-in.
        data_root: Folder of the data set.
        dumps: Folder for what the teacher sees.
    """
    from mmengine.registry import init_default_scope

    from mmdet_softpl.datasets.annotation_file import load_annotation_file
    from mmdet_softpl.datasets.class_statistics import class_statistics
    from mmdet_softpl.engine.config_parts import labeller_of
    from mmdet_softpl.evaluation.class_mix import mix_weights
    from mmdet_softpl.evaluation.ground_truth import GroundTruth
    from mmdet_softpl.evaluation.label_replay import LabelSettings
    from mmdet_softpl.evaluation.label_search import LabelSearch
    from mmdet_softpl.evaluation.teacher_dump import dump_teacher
    from mmdet_softpl.file_keys import file_key

    from . import parts  # noqa: F401
    from .measure import split_dataset

    init_default_scope('mmdet')
    statistics = class_statistics(data_root / 'annotations' / 'train.json')
    path = str(data_root / 'annotations' / f'{SPLIT}.json')
    truth = GroundTruth(load_annotation_file(path), statistics.classes, path)
    progress = Progress('labelling as each arm')
    found = {}
    for number, arm in enumerate(arms):
        cfg = placed(arm_config(arm, preset, seed), data_root)
        detector = _teacher(cfg, checkpoint)
        dataset = split_dataset(cfg, Path(path), data_root / SPLIT)
        # Of the settings only the second view changes what is stored.
        source = dict(checkpoint=file_key(checkpoint), mirror=detector.labeling_cfg.mirror)
        dump = dump_teacher(detector, dataset, truth, dumps, source)
        settings = LabelSettings.from_configs(labeller_of(cfg)[1], cfg.model.semi_train_cfg)
        search = LabelSearch(
            dump,
            statistics,
            detector.labeling_cfg,
            object_weights=mix_weights(statistics, dump.object_counts(), len(dump.images)),
        )
        found[arm] = search.everywhere(settings)
        progress(number + 1, len(arms))
    return found


def _teacher(cfg: Any, checkpoint: Path) -> Any:
    import torch
    from mmdet.registry import MODELS

    detector = MODELS.build(cfg.model)
    # Of our own making; it holds the optimizer's state too.
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)
    detector.load_state_dict(state['state_dict'])
    return detector.to('cuda' if torch.cuda.is_available() else 'cpu').eval()


def _markdown(
    found: dict[str, dict[str, float]], trained: dict[str, tuple[float | None, ...]]
) -> str:
    """A row an arm, by proxy, and the rank correlations of it and of its two parts."""
    from mmdet_softpl.engine.online_tuning import rank_correlation

    lines = [
        '| arm | proxy | likelihood | F1 | AP, `tune` | APr, `tune` | AP, `test` | APr, `test` |',
        '|---|---|---|---|---|---|---|---|',
    ]
    ranked = sorted(found, key=lambda arm: found[arm]['proxy'])
    for arm in ranked:
        values = [f'{found[arm][key]:.3f}' for key in COLUMNS]
        values += ['-' if value is None else f'{100 * value:.1f}' for value in trained[arm]]
        lines.append(f'| {arm} | {" | ".join(values)} |')
    for column, name in enumerate(('AP, tune', 'APr, tune', 'AP, test', 'APr, test')):
        measured = {arm: trained[arm][column] for arm in ranked}
        other = {arm: value for arm, value in measured.items() if value is not None}
        said = []
        for key, title in COLUMNS.items():
            correlation = rank_correlation([found[arm][key] for arm in other], list(other.values()))
            text = 'too few arms' if correlation is None else f'{correlation:+.2f}'
            said.append(f'{title} {text}')
        lines.append(f'rank correlation with {name}: {", ".join(said)}')
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
