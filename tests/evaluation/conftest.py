"""Random annotation files and detections of them, in COCO and LVIS form."""

import json

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch

SIZE = 64
CLASS_NAMES = tuple(f'class{c}' for c in range(9))
# Not 1..C and not in the order of the ids, so that label, row and id cannot be mixed up unseen.
CAT_IDS = (30, 2, 17, 5, 40, 11, 23, 8, 61)


def ellipse(cx, cy, rx, ry):
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


def to_rle(mask):
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': rle['size'], 'counts': rle['counts'].decode()}


def box_of(mask):
    y, x = np.nonzero(mask)
    return [int(x.min()), int(y.min()), int(x.max() + 1), int(y.max() + 1)]


def make_dataset(seed=0, num_images=12, federated=True, crowd=False):
    """COCO or LVIS dict with 9 classes (3 rare, 3 common, 3 frequent) and elliptic objects."""
    rng = np.random.default_rng(seed)
    # Two classes never occur: one has no object at all, one is only ever known to be absent.
    occurring = [c for c in range(9) if c not in (2, 7)]
    images, annotations = [], []
    for img_id in range(1, num_images + 1):
        present = set()
        for _ in range(rng.integers(0, 7)):
            c = int(rng.choice(occurring))
            mask = ellipse(*rng.uniform(12, SIZE - 12, 2), *rng.uniform(5, 12, 2))
            x1, y1, x2, y2 = box_of(mask)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': img_id,
                    'category_id': CAT_IDS[c],
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'area': float(mask.sum()),
                    'iscrowd': int(crowd and rng.random() < 0.2),
                    'segmentation': to_rle(mask),
                }
            )
            present.add(c)
        image = {'id': img_id, 'file_name': f'{img_id}.png', 'height': SIZE, 'width': SIZE}
        if federated:
            absent = [c for c in range(9) if c not in present and rng.random() < 0.4]
            partly = [c for c in present if rng.random() < 0.3]
            image['neg_category_ids'] = [CAT_IDS[c] for c in absent]
            image['not_exhaustive_category_ids'] = [CAT_IDS[c] for c in partly]
        images.append(image)
    categories = [{'id': CAT_IDS[c], 'name': name} for c, name in enumerate(CLASS_NAMES)]
    if federated:
        for c, category in enumerate(categories):
            category['frequency'] = 'rcf'[c % 3]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def make_predictions(dataset, seed=0, per_image=25, jitter=2.0):
    """One mmengine-like data sample an image: jittered objects among random ones."""
    rng = np.random.default_rng(seed + 1)
    label_of = {cat_id: c for c, cat_id in enumerate(CAT_IDS)}
    samples = []
    for image in dataset['images']:
        objects = [a for a in dataset['annotations'] if a['image_id'] == image['id']]
        bboxes, labels, masks = [], [], []
        for i in range(per_image):
            if objects and i < per_image * 0.7:
                chosen = objects[rng.integers(len(objects))]
                x, y, w, h = chosen['bbox']
                cx, cy = np.array([x + w / 2, y + h / 2]) + rng.normal(0, jitter, 2)
                rx, ry = np.maximum(np.array([w / 2, h / 2]) + rng.normal(0, jitter / 2, 2), 2.5)
                label = label_of[chosen['category_id']] if rng.random() < 0.8 else rng.integers(9)
            else:
                (cx, cy), (rx, ry) = rng.uniform(10, SIZE - 10, 2), rng.uniform(5, 12, 2)
                label = rng.integers(9)
            mask = ellipse(np.clip(cx, 4, SIZE - 4), np.clip(cy, 4, SIZE - 4), rx, ry)
            masks.append(mask)
            bboxes.append([float(v) for v in box_of(mask)])
            labels.append(int(label))
        samples.append(
            {
                'img_id': image['id'],
                'pred_instances': {
                    'bboxes': torch.tensor(bboxes).view(-1, 4),
                    'scores': torch.from_numpy(rng.permutation(per_image) / per_image * 0.9 + 0.05)
                    .float()
                    .view(-1),
                    'labels': torch.tensor(labels, dtype=torch.long),
                    'masks': torch.from_numpy(np.array(masks).reshape(-1, SIZE, SIZE)),
                },
            }
        )
    return samples


def as_records(samples):
    """The predictions as the list of a COCO results file."""
    records = []
    for sample in samples:
        found = sample['pred_instances']
        for i in range(len(found['labels'])):
            x1, y1, x2, y2 = found['bboxes'][i].tolist()
            records.append(
                {
                    'image_id': sample['img_id'],
                    'category_id': CAT_IDS[int(found['labels'][i])],
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'score': float(found['scores'][i]),
                    'segmentation': to_rle(found['masks'][i].numpy()),
                }
            )
    return records


@pytest.fixture
def data():
    """The makers above, for tests (folders of tests are no packages)."""

    class Makers:
        class_names = CLASS_NAMES
        cat_ids = CAT_IDS
        dataset = staticmethod(make_dataset)
        predictions = staticmethod(make_predictions)
        records = staticmethod(as_records)

    return Makers


@pytest.fixture
def write(tmp_path):
    """Write a dict as a json file, return its path."""

    def write(content, name='annotations.json'):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return str(path)

    return write
