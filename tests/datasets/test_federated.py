"""Known and loosely labelled classes, of an example small enough to write down."""

from __future__ import annotations

import numpy as np

from mmdet_softpl.datasets.federated import federated_classes


def test_known_and_not_exhaustive():
    images = [
        {'id': 30, 'neg_category_ids': [5], 'not_exhaustive_category_ids': []},
        {'id': 10, 'neg_category_ids': [7, 99], 'not_exhaustive_category_ids': [6]},
        {'id': 20},
    ]
    # Category ids 5, 6, 7 at the indices 0, 1, 2, of which 1 and 2 are in use as labels 0 and 1.
    pairs = np.array([0 * 3 + 1, 1 * 3 + 0])
    known, loose = federated_classes(
        images, {5: 0, 6: 1, 7: 2}, {30: 0, 10: 1, 20: 2}, pairs, 3, [1, 2]
    )
    assert known == {30: {0}, 10: {1}, 20: set()}
    assert loose == {10: {0}}
