"""Run-length codes are those of COCO's toolbox, to the byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eca_zoo.detection.run_lengths import area, compress, decode, encode, encode_in_box, expand

toolbox = pytest.importorskip('pycocotools.mask')


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_mask_has_the_code_that_the_toolbox_gives_it(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = encode(mask)
    assert code == toolbox.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert np.array_equal(decode(code), mask)
    assert area(code) == mask.sum()


@given(st.integers(-6, 12), st.integers(-6, 12), st.integers(0, 14), st.integers(0, 14), st.integers(0, 2**32 - 1))
def test_a_box_has_the_code_of_the_image_that_it_is_pasted_into(left, top, height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.7
    image = np.zeros((40, 40), dtype=np.uint8)
    image[14 + top : 14 + top + height, 14 + left : 14 + left + width] = mask
    pasted = np.asfortranarray(image[14:24, 14:25])
    assert encode_in_box(mask, left, top, (10, 11)) == toolbox.encode(pasted)


@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=30))
def test_runs_of_any_length_survive_their_text(runs):
    assert expand(compress(np.array(runs))).tolist() == runs


def test_runs_of_another_image_are_refused():
    code = encode(np.ones((3, 4), dtype=bool))
    with pytest.raises(ValueError, match='12 pixels and the image 3x5'):
        decode({'size': [3, 5], 'counts': code['counts']})
    with pytest.raises(ValueError, match='not text as COCO writes it'):
        expand(b'~')
