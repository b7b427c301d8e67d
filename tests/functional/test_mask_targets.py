"""Mask resampling against warped full images (OpenCV), boxes and points against numpy."""

import cv2
import numpy as np
import pytest
import torch

from mmdet_softpl.functional import (
    mask_quality,
    resample_roi_masks,
    warp_boxes,
    warp_mask_boxes,
    warp_points,
)

TEACHER = (240, 320)
STUDENT = (260, 300)


def smooth_mask(rng, size=28):
    """Random blob (S, S) of probabilities that often touches the border."""
    noise = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 4)
    y, x = (np.mgrid[:size, :size] + 0.5) / size - rng.uniform(0.4, 0.6, (2, 1, 1))
    logits = 4 * noise / noise.std() / 2 + 25 * (rng.uniform(0.1, 0.2) - x**2 - y**2)
    return (1 / (1 + np.exp(-2 * logits))).astype(np.float32)


def about(centre, matrix):
    """A 3 x 3 transform that keeps the point ``centre``."""
    shift = np.eye(3)
    shift[:2, 2] = centre
    return shift @ matrix @ np.linalg.inv(shift)


def random_transform(rng, kinds):
    """Homography teacher view -> student view."""
    height, width = TEACHER
    h = np.eye(3)
    if 'flip' in kinds:
        h = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) @ h
    if 'resize' in kinds:
        h = np.diag([*rng.uniform(0.7, 1.3, 2), 1.0]) @ h
    if 'rotate' in kinds:
        angle = rng.uniform(-0.5, 0.5)
        turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        h = about((width / 2, height / 2), np.array(turn)) @ h
    if 'shear' in kinds:
        shear = [[1, rng.uniform(-0.3, 0.3), 0], [rng.uniform(-0.3, 0.3), 1, 0], [0, 0, 1]]
        h = about((width / 2, height / 2), np.array(shear)) @ h
    if 'translate' in kinds:
        h = np.array([[1, 0, rng.uniform(-30, 30)], [0, 1, rng.uniform(-30, 30)], [0, 0, 1]]) @ h
    if 'perspective' in kinds:
        h = np.array([[1, 0, 0], [0, 1, 0], [*rng.uniform(-3e-4, 3e-4, 2), 1]]) @ h
    return h


def paste(mask, box):
    """The mask on the teacher's image: bilinear, 0 beyond its cells, nothing outside the box."""
    x1, y1, x2, y2 = box
    size = mask.shape[0]
    x = (np.arange(x2 - x1) + 0.5) / (x2 - x1) * size - 0.5
    y = (np.arange(y2 - y1) + 0.5) / (y2 - y1) * size - 0.5
    grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    image = np.zeros(TEACHER, np.float32)
    image[y1:y2, x1:x2] = cv2.remap(
        mask, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return image


def warp_image(image, homography):
    """OpenCV puts pixel centres at integers, homographies have them at half-integers."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    pixels = np.linalg.inv(half) @ homography @ half
    return cv2.warpPerspective(image, pixels, STUDENT[::-1], flags=cv2.INTER_LINEAR)


KINDS = [
    (),
    ('flip',),
    ('resize',),
    ('rotate',),
    ('shear',),
    ('translate',),
    ('flip', 'resize', 'rotate', 'shear', 'translate'),
    ('flip', 'resize', 'rotate', 'shear', 'translate', 'perspective'),
]


@pytest.mark.parametrize('kinds', KINDS, ids=lambda kinds: '-'.join(kinds) or 'identity')
@pytest.mark.parametrize('seed', range(3))
def test_targets_are_those_of_the_warped_full_image(kinds, seed):
    rng = np.random.default_rng([seed, len(kinds)])
    num = 6
    teacher_to_student = random_transform(rng, kinds)
    masks, boxes, rois, expected = [], [], [], []
    while len(masks) < num:
        corner, side = rng.integers(0, 140, 2), rng.integers(50, 100, 2)
        box = np.concatenate([corner, corner + side])
        hull = warp_boxes(
            torch.from_numpy(box)[None], torch.from_numpy(teacher_to_student), STUDENT
        )[0].numpy()
        roi = np.round(hull + rng.uniform(-8, 8, 4)).astype(int)
        roi = roi.clip(0, [STUDENT[1], STUDENT[0]] * 2)
        if (roi[2:] - roi[:2] < 30).any():
            continue
        mask = smooth_mask(rng)
        warped = warp_image(paste(mask, box), teacher_to_student)
        crop = warped[roi[1] : roi[3], roi[0] : roi[2]]
        masks.append(mask)
        boxes.append(box)
        rois.append(roi)
        expected.append(cv2.resize(crop, (28, 28), interpolation=cv2.INTER_LINEAR))

    student_to_teacher = torch.from_numpy(np.linalg.inv(teacher_to_student)).float()
    order = torch.from_numpy(rng.permutation(num))
    targets, visible = resample_roi_masks(
        torch.from_numpy(np.stack(masks)),
        torch.from_numpy(np.stack(boxes)),
        torch.from_numpy(np.stack(rois))[order],
        order,
        student_to_teacher.expand(num, 3, 3),
        torch.tensor(TEACHER).expand(num, 2),
    )
    assert targets.shape == (num, 28, 28)
    assert visible.shape == (num,)
    for target, index in zip(targets.numpy(), order.tolist(), strict=True):
        ours, theirs = target >= 0.5, expected[index] >= 0.5
        assert theirs.sum() > 50
        assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.95
        assert np.abs(target - expected[index]).mean() < 0.02


def test_the_same_box_gives_the_same_mask():
    masks = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0, 10, 10], [5.5, 7.25, 20, 90], [3, 3, 4, 4]])
    targets, visible = resample_roi_masks(
        masks, boxes, boxes, torch.arange(3), torch.eye(3).expand(3, 3, 3), torch.full((3, 2), 100)
    )
    torch.testing.assert_close(targets, masks, rtol=0, atol=1e-4)
    assert visible.tolist() == [1, 1, 1]


def test_a_flipped_view_gives_the_flipped_mask_exactly():
    mask = torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(0))
    flip = torch.tensor([[[-1.0, 0, 64], [0, 1, 0], [0, 0, 1]]])
    targets, _ = resample_roi_masks(
        mask,
        torch.tensor([[10.0, 20, 38, 48]]),
        torch.tensor([[26.0, 20, 54, 48]]),
        torch.tensor([0]),
        flip,
        torch.tensor([[64, 64]]),
        size=14,
    )
    torch.testing.assert_close(targets, mask.flip(2), rtol=0, atol=1e-5)


def test_half_a_box_beside_the_teachers_is_background():
    targets, _ = resample_roi_masks(
        torch.ones(1, 8, 8),
        torch.tensor([[0.0, 0, 16, 16]]),
        torch.tensor([[8.0, 0, 24, 16]]),
        torch.tensor([0]),
        torch.eye(3)[None],
        torch.tensor([[32, 32]]),
        size=8,
    )
    assert (targets[0, :, :3] > 0.99)[1:-1].all()
    assert not targets[0, :, 4:].any()


def test_visible_is_the_share_inside_the_teachers_image():
    rois = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [-5, -5, 5, 5]])
    _, visible = resample_roi_masks(
        torch.ones(1, 4, 4),
        torch.tensor([[0.0, 0, 10, 10]]),
        rois,
        torch.zeros(4, dtype=torch.long),
        torch.eye(3).expand(4, 3, 3),
        # Height 20, width 10.
        torch.tensor([[20, 10]]).expand(4, 2),
        size=10,
    )
    assert visible.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.25])


def test_every_roi_has_its_own_homography():
    shifts = torch.eye(3).repeat(2, 1, 1)
    shifts[0, 0, 2], shifts[1, 1, 2] = 10, -10
    mask = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0))
    targets, _ = resample_roi_masks(
        mask,
        torch.tensor([[20.0, 20, 32, 32]]),
        torch.tensor([[10.0, 20, 22, 32], [20, 30, 32, 42]]),
        torch.zeros(2, dtype=torch.long),
        shifts,
        torch.full((2, 2), 64),
        size=6,
    )
    torch.testing.assert_close(targets, mask.expand(2, 6, 6), rtol=0, atol=1e-5)


@pytest.mark.parametrize('num_instances', [0, 2])
def test_no_rois(num_instances):
    targets, visible = resample_roi_masks(
        torch.ones(num_instances, 28, 28),
        torch.zeros(num_instances, 4),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.long),
        torch.zeros(0, 3, 3),
        torch.zeros(0, 2),
    )
    assert targets.shape == (0, 28, 28)
    assert visible.shape == (0,)


def test_boxes_and_rois_without_area_are_safe():
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 20], [0, 0, 10, 10]])
    rois = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 10], [5, 5, 5, 5]])
    targets, visible = resample_roi_masks(
        torch.ones(3, 28, 28),
        boxes,
        rois,
        torch.arange(3),
        torch.eye(3).expand(3, 3, 3),
        torch.full((3, 2), 32),
    )
    assert not targets[:2].any()
    assert targets[2].allclose(torch.ones(28, 28))
    assert visible.tolist() == [1, 1, 1]


def test_a_degenerate_homography_gives_finite_targets():
    targets, visible = resample_roi_masks(
        torch.ones(1, 4, 4),
        torch.tensor([[0.0, 0, 10, 10]]),
        torch.tensor([[1.0, 1, 9, 9]]),
        torch.tensor([0]),
        torch.tensor([[[1e30, 0, 0], [0, 1e30, 0], [0, 0, 0.0]]]),
        torch.tensor([[10, 10]]),
    )
    assert targets.isfinite().all()
    assert not targets.any()
    assert visible.tolist() == [0]


def test_half_precision_inputs_keep_the_coordinates_in_float32():
    masks = torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[1000.0, 1000, 1064, 1064], [512, 512, 600, 600]])
    arguments = (torch.arange(2), torch.eye(3).expand(2, 3, 3), torch.full((2, 2), 2000))
    expected = resample_roi_masks(masks.bfloat16().float(), boxes, boxes, *arguments)
    with torch.autocast('cpu', torch.bfloat16):
        actual = resample_roi_masks(masks.bfloat16(), boxes, boxes, *arguments)
    assert actual[0].dtype == torch.float32
    torch.testing.assert_close(actual, expected)


def test_mask_targets_pass_gradients_to_the_masks():
    masks = torch.rand(2, 5, 5, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 10, 10], [3, 3, 9, 9]], dtype=torch.float64)
    rois = boxes + torch.tensor([1.0, -1, 2, 1])
    assert torch.autograd.gradcheck(
        lambda m: resample_roi_masks(
            m,
            boxes,
            rois,
            torch.arange(2),
            torch.eye(3).double().expand(2, 3, 3),
            torch.full((2, 2), 16),
            size=4,
        )[0],
        masks,
    )


# --- points and boxes ---


def test_points_are_numpys_in_homogeneous_coordinates():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 300, (3, 7, 2))
    matrices = np.stack([random_transform(rng, KINDS[-1]) for _ in range(3)])
    homogeneous = np.concatenate([points, np.ones((3, 7, 1))], axis=2)
    mapped = np.einsum('pij,pmj->pmi', matrices, homogeneous)
    expected = mapped[..., :2] / mapped[..., 2:]
    actual = warp_points(torch.from_numpy(points), torch.from_numpy(matrices))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9)
    assert warp_points(torch.zeros(0, 5, 2), torch.zeros(0, 3, 3)).shape == (0, 5, 2)


def test_boxes_are_the_hulls_of_opencvs_corners():
    rng = np.random.default_rng(1)
    matrix = random_transform(rng, KINDS[-1])
    corner = rng.uniform(20, 150, (10, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 90, (10, 2))], axis=1)
    actual = warp_boxes(torch.from_numpy(boxes), torch.from_numpy(matrix), STUDENT)
    for box, ours in zip(boxes, actual.numpy(), strict=True):
        x1, y1, x2, y2 = box
        corners = np.array([[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]])
        mapped = cv2.perspectiveTransform(corners, matrix)[0].clip(0, STUDENT[::-1])
        np.testing.assert_allclose(ours, [*mapped.min(0), *mapped.max(0)], rtol=1e-6)


def test_boxes_outside_the_view_lose_their_area():
    shift = torch.tensor([[1.0, 0, 1000], [0, 1, 0], [0, 0, 1]])
    assert warp_boxes(torch.tensor([[0.0, 0, 5, 5]]), shift, (50, 40)).tolist() == [[40, 0, 40, 5]]
    assert warp_boxes(torch.zeros(0, 4), shift, (50, 40)).shape == (0, 4)


@pytest.mark.parametrize('kinds', KINDS, ids=lambda kinds: '-'.join(kinds) or 'identity')
def test_mask_boxes_are_the_hulls_of_all_stretched_cells(kinds):
    rng = np.random.default_rng([7, len(kinds)])
    matrix = random_transform(rng, kinds)
    masks = np.stack([smooth_mask(rng) for _ in range(8)])
    masks[:, :3] = masks[:, :, 25:] = 0
    masks[1] = 0
    masks[1, 6, 4] = 1
    # A row without a cell between two with some.
    masks[2, 12] = 0
    corner = rng.uniform(20, 120, (8, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 90, (8, 2))], axis=1)
    given = torch.from_numpy(boxes), torch.from_numpy(masks), torch.from_numpy(matrix), STUDENT
    actual = warp_mask_boxes(*given)
    for box, mask, ours in zip(boxes, masks, actual.numpy(), strict=True):
        rows, columns = np.nonzero(mask > 0.5)
        corners = [
            (column + i, row + j)
            for row, column in zip(rows, columns, strict=True)
            for i in (0, 1)
            for j in (0, 1)
        ]
        cells = np.array(corners, dtype=float)
        low, high = cells.min(0), cells.max(0)
        points = box[:2] + (cells - low) / (high - low) * (box[2:] - box[:2])
        mapped = cv2.perspectiveTransform(points[None], matrix)[0].clip(0, STUDENT[::-1])
        np.testing.assert_allclose(ours, [*mapped.min(0), *mapped.max(0)], atol=1e-4)
    hulls = warp_boxes(given[0], given[2], STUDENT)
    assert (actual[:, :2] >= hulls[:, :2] - 1e-4).all()
    assert (actual[:, 2:] <= hulls[:, 2:] + 1e-4).all()
    if not {'rotate', 'shear'} & set(kinds):
        torch.testing.assert_close(actual, hulls, rtol=0, atol=1e-4)


def test_the_box_of_a_turned_disc_stays_while_its_hull_grows():
    y, x = np.mgrid[:56, :56] + 0.5
    disc = torch.from_numpy(((x - 28) ** 2 + (y - 28) ** 2 <= 28**2).astype(np.float32))
    angle = np.deg2rad(15)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    matrix = torch.from_numpy(about((150, 120), np.array(turn)))
    box = torch.tensor([[100.0, 70, 200, 170]])
    sides = (0, 1, 2, 3)
    ours = warp_mask_boxes(box, disc[None], matrix, TEACHER)[0]
    # To the side of a cell, 100 / 56 pixels.
    assert all(abs(float(ours[i] - box[0, i])) < 1.8 for i in sides)
    hull = warp_boxes(box, matrix, TEACHER)[0]
    assert float(hull[2] - hull[0]) == pytest.approx(122.5, abs=0.1)


def test_mask_boxes_of_full_empty_and_no_masks():
    rng = np.random.default_rng(3)
    matrix = torch.from_numpy(random_transform(rng, ('rotate', 'shear')))
    box = torch.tensor([[60.0, 70, 120, 150]]).expand(2, 4)
    masks = torch.stack([torch.ones(28, 28), torch.full((28, 28), 0.4)])
    expected = warp_boxes(box, matrix, STUDENT)
    torch.testing.assert_close(warp_mask_boxes(box, masks, matrix, STUDENT), expected)
    none = warp_mask_boxes(torch.zeros(0, 4), torch.zeros(0, 28, 28), matrix, STUDENT)
    assert none.shape == (0, 4)


# --- quality ---


def test_quality_matches_a_loop():
    masks = torch.rand(5, 6, 6, generator=torch.Generator().manual_seed(0))
    masks[0] *= 0.4
    expected = []
    for mask in masks:
        foreground = [p for p in mask.flatten().tolist() if p >= 0.5]
        expected.append(sum(foreground) / len(foreground) if foreground else 0.0)
    assert mask_quality(masks).tolist() == pytest.approx(expected)
    assert expected[0] == 0
    assert mask_quality(torch.zeros(0, 28, 28)).shape == (0,)
    # The threshold itself is foreground.
    assert mask_quality(torch.full((1, 2, 2), 0.5)).tolist() == [0.5]


def test_quality_in_bfloat16_with_another_threshold():
    quality = mask_quality(torch.full((1, 100, 100), 0.3125).bfloat16(), threshold=0.3)
    assert quality.dtype == torch.float32
    assert quality.item() == pytest.approx(0.3125)


def test_a_point_on_the_horizon_stays_finite():
    """Its third coordinate is 0: infinitely far away, which no box could be clipped from."""
    homography = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, -4]])
    points = torch.tensor([[[4.0, 3.0], [6.0, 2.0]]])
    far, near = warp_points(points, homography[None])[0]
    assert torch.isfinite(far).all() and (far.abs() > 1e6).all()
    torch.testing.assert_close(near, torch.tensor([3.0, 1.0]))
    # The box that such a corner is of ends at the border.
    box = warp_boxes(torch.tensor([[4.0, 2, 6, 3]]), homography, (40, 50))
    torch.testing.assert_close(box, torch.tensor([[3.0, 1, 50, 40]]))
