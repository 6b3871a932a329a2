"""What a detector is trained on: which images and objects count, and where they are after resize and flip."""

import pickle

import numpy as np
import pytest
import torch

from eca_zoo.detection.coco_images import open_coco
from eca_zoo.detection.evaluation.matching import toolbox_masks
from eca_zoo.detection.networks.transform import DetectionTransform
from eca_zoo.errors import RunError
from eca_zoo.training.data.objects import DetectionReader, TrainingObjects
from tests.detection.coco_sets import CATEGORIES, write_set

TRANSFORM = DetectionTransform(90, 200)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return open_coco(write_set(tmp_path_factory.mktemp('coco'), seed=3, images=12), 'val')


def reader_of(data, hflip=0.0, seed=0):
    return DetectionReader(data, TrainingObjects(data.annotations), TRANSFORM, hflip, seed, True)


def objects_of(data, position):
    """Numbers of the objects that are trained on, found one by one."""
    annotations = data.annotations
    of_image = [n for n in range(len(annotations)) if annotations.image_ids[n] == annotations.images[position].id]
    return [n for n in of_image if not annotations.is_crowd[n] and min(annotations.boxes[n, 2:]) >= 1]


def test_crowds_and_images_without_another_object_are_left_out(data):
    objects = TrainingObjects(data.annotations)
    expected = {position: found for position in range(len(data)) if (found := objects_of(data, position))}
    assert objects.positions.tolist() == list(expected)
    assert 0 < len(objects) < len(data)
    assert data.annotations.is_crowd.any()
    assert [objects.of(index).tolist() for index in range(len(objects))] == list(expected.values())
    assert objects.is_lying().tolist() == [1] * len(objects)


def test_objects_are_where_the_framework_has_them_and_turned_in_the_resized_image(data):
    objects = TrainingObjects(data.annotations)
    plain, turned = (reader_of(data, hflip)(0, tuple(range(len(objects)))) for hflip in (0.0, 1.0))
    labels = {number: label for label, number in enumerate(CATEGORIES)}
    for index, position in enumerate(objects.positions.tolist()):
        image, target = plain.images[index], plain.targets[index]
        flipped, flipped_target = turned.images[index], turned.targets[index]
        height, width = image.geometry.size
        assert (height, width) == (90, 120)
        # mmdetection v1 counts pixels: boxes end at the last one, and are multiplied, clipped and turned so.
        left, top, box_width, box_height = data.annotations.boxes[objects_of(data, position)].astype(np.float32).T
        last = (
            np.clip((left + box_width - 1) * 0.75, 0, width - 1),
            np.clip((top + box_height - 1) * 0.75, 0, height - 1),
        )
        first = np.clip(left * 0.75, 0, width - 1), np.clip(top * 0.75, 0, height - 1)
        corners = np.stack([*first, last[0] + 1, last[1] + 1], axis=1)
        assert target.boxes.numpy() == pytest.approx(corners, abs=1e-4)
        corners = np.stack([width - last[0] - 1, first[1], width - first[0], last[1] + 1], axis=1)
        assert flipped_target.boxes.numpy() == pytest.approx(corners, abs=1e-4)
        numbers = data.annotations.category_ids[objects_of(data, position)].tolist()
        assert target.labels.tolist() == flipped_target.labels.tolist() == [labels[number] for number in numbers]
        assert torch.equal(flipped.pixels, image.pixels.flip(2))
        assert flipped.geometry == image.geometry
        assert torch.equal(flipped_target.masks, target.masks.flip(2))
        codes = data.annotations.masks(toolbox_masks())
        for number, mask in zip(objects_of(data, position), target.masks.numpy(), strict=True):
            whole = toolbox_masks().decode(codes[number])
            assert np.array_equal(mask, whole[np.arange(height) * 4 // 3][:, np.arange(width) * 4 // 3])
            assert mask.any()


def test_a_flip_follows_from_seed_epoch_and_image_alone(data):
    count = len(TrainingObjects(data.annotations))
    reader = reader_of(data, 0.5)
    together = reader(1, tuple(range(count)))
    # As processes get it that do not begin as copies of this one.
    sent = pickle.loads(pickle.dumps(reader))(1, tuple(range(count)))
    assert all(
        torch.equal(*pair)
        for pair in zip(
            (image.pixels for image in sent.images), (image.pixels for image in together.images), strict=True
        )
    )
    apart = [reader_of(data, 0.5)(1, (index,)) for index in reversed(range(count))]
    for index, batch in enumerate(reversed(apart)):
        assert torch.equal(batch.images[0].pixels, together.images[index].pixels)
    other = reader(2, tuple(range(count)))
    pairs = zip(together.images, other.images, strict=True)
    equal = [torch.equal(first.pixels, second.pixels) for first, second in pairs]
    assert 0 < sum(equal) < count


def test_an_image_that_cannot_be_read_is_named_and_the_next_one_stands_in(tmp_path):
    data = open_coco(write_set(tmp_path / 'coco', seed=3, images=12), 'val')
    reader = reader_of(data)
    bad = data.path(int(TrainingObjects(data.annotations).positions[0]))
    bad.write_bytes(b'no image')
    found = reader(0, (0, 1))
    assert found.bad == [(str(bad), 'no image that Pillow can read')]
    assert torch.equal(found.images[0].pixels, found.images[1].pixels)
    assert torch.equal(found.targets[0].boxes, found.targets[1].boxes)
    with pytest.raises(
        RunError, match=r'no image that Pillow can read\), nor any other image of its step; repair them'
    ):
        reader(0, (0,))
