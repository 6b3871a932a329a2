"""Pictures show what was found: boxes, masks and names, and leave the rest of the image as it is."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from eca_zoo.cli import main
from eca_zoo.detection.pictures import Drawn, draw, objects_of
from eca_zoo.detection.run_lengths import encode_in_box
from tests.detection.coco_sets import write_checkpoint, write_set


def test_a_mask_is_translucent_and_what_lies_outside_stays(tmp_path):
    ground = Image.new('RGB', (600, 500), (200, 200, 200))
    mask = encode_in_box(np.ones((100, 80), dtype=bool), 100, 200, (500, 600))
    pixels = np.asarray(draw(ground, [Drawn((100, 200, 180, 300), 'cat 0.90', 3, mask)])).astype(int)
    assert np.abs(pixels[250, 140] - 200).max() > 20
    assert pixels[250, 140].min() > 0
    assert (pixels[400:, :] == 200).all()
    assert (np.asarray(ground) == 200).all()


@pytest.mark.parametrize('level', [0, 255])
def test_a_box_and_its_name_stand_out_from_any_ground(level):
    ground = Image.new('RGB', (600, 500), (level,) * 3)
    for colour in range(7):
        pixels = np.asarray(draw(ground, [Drawn((100, 200, 180, 300), 'cat 0.90', colour)])).astype(int)
        edge = np.abs(pixels[250, 95:105] - level).max()
        name = pixels[180:199, 100:160].reshape(-1, 3)
        assert edge > 100
        assert name.max() - name.min() > 100


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGBA', 'P', '1'])
def test_small_images_of_any_mode_are_enlarged_and_names_stay_inside(mode):
    picture = draw(Image.new(mode, (40, 30)), [Drawn((30, 0, 40, 30), 'a very long name of an object', 1)])
    assert (picture.mode, picture.size) == ('RGB', (480, 360))


def test_what_is_drawn_has_the_score_that_was_asked_for():
    found = {
        'boxes': torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), 'labels': torch.tensor([3, 7]),
        'scores': torch.tensor([0.9, 0.4]),
    }  # fmt: skip
    assert objects_of(found, {3: 'cat', 7: 'dog'}, 0.5) == [Drawn((1, 2, 3, 4), 'cat 0.90', 3, None)]


def test_detect_writes_a_picture_and_the_detections_of_each_image(tmp_path, capsys):
    folder, weights = write_set(tmp_path / 'set', images=3), write_checkpoint(tmp_path / 'w.safetensors')
    single = tmp_path / '000.png'
    Image.new('L', (50, 70)).save(single)
    arguments = ['detect', '-m', 'test_maskrcnn', '--checkpoint', str(weights), '--device', 'cpu', '--threshold', '0.2']
    assert main([*arguments, str(folder), str(single), str(single), '--out', str(tmp_path / 'out')]) == 0
    found = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert [image['picture'] for image in found] == ['000.png', '001.png', '002.png', '000.2.png']
    assert (found[3]['width'], found[3]['height']) == (50, 70)
    for image in found:
        assert (tmp_path / 'out' / image['picture']).is_file()
        for entry in image['detections']:
            assert entry['score'] >= 0.2
            assert entry['segmentation']['size'] == [image['height'], image['width']]
    assert 'objects in 4 images' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['-m', 'test_resnet'], "no detector is called 'test_resnet'"),
        (['-m', 'maskrcnn_*', '--threshold', '0.5'], 'stands for 2 detectors; name one'),
        (['-m', 'test_maskrcnn', '--threshold', '2'], '--threshold is from 0 to 1, not 2.0'),
    ],
)
def test_wrong_arguments_of_detect_are_named(tmp_path, capsys, arguments, message):
    assert main(['detect', str(tmp_path), '--out', str(tmp_path / 'out'), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
