"""Pictures are found in a json by path, by base name only where that says which one."""

from __future__ import annotations

from mmdet_softpl.datasets.image_ids import image_ids_by_file


def test_by_path_then_by_a_base_name_that_one_alone_has() -> None:
    images = [
        dict(id=7, file_name='a/1.jpg'),
        dict(id=8, file_name='b/1.jpg'),
        dict(id=9, file_name='elsewhere/2.jpg'),
        dict(id=10, file_name='3.jpg'),
        dict(id=11, coco_url='http://x.org/c/4.jpg'),
        dict(id=12),
    ]
    paths = ['root/a/1.jpg', 'root/./b/1.jpg', 'root/c/1.jpg', 'root/c/2.jpg', 'root/c/4.jpg']
    twice = ['root/x/3.jpg', 'root/y/3.jpg', 'root/5.jpg']
    assert image_ids_by_file(paths + twice, images, 'root/') == {
        'root/a/1.jpg': 7,
        'root/./b/1.jpg': 8,
        'root/c/2.jpg': 9,
        'root/c/4.jpg': 11,
    }
