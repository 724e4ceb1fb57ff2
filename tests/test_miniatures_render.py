"""The renderer of the miniatures: determinism, labels and settings out of range."""

from dataclasses import replace

import numpy as np
import pytest

from qaconv_lib.miniatures.cameras import sample_camera
from qaconv_lib.miniatures.domains import DOMAINS, PART_NAMES
from qaconv_lib.miniatures.people import sample_family, sample_person
from qaconv_lib.miniatures.render import Drawing, render_background, render_person

CALM = replace(DOMAINS["market"], occlusion=0.0, company=0.0, cut_feet=0.0, standing=0.0)


def _cast(domain=CALM, seed=0):
    rng = np.random.default_rng(seed)
    person = sample_person(domain, sample_family(domain, rng), rng)
    return person, sample_camera(domain, np.random.default_rng(0))  # scenes are built once each


def _draw(person, camera, domain=CALM, seed=0, **options) -> Drawing:
    return render_person(person, camera, domain, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_every_domain_draws_images_with_valid_labels(name):
    domain = DOMAINS[name]
    person, camera = _cast(domain, 3)
    drawing = _draw(person, camera, domain, bystanders=[person])
    assert drawing.image.shape == (128, 64, 3) and drawing.image.dtype == np.uint8
    assert drawing.parts.shape == (128, 64) and drawing.parts.dtype == np.uint8
    assert drawing.parts.max() < len(PART_NAMES)
    assert 15 < drawing.image.mean() < 240 and drawing.image.std() > 8
    assert 40 <= camera.jpeg_quality <= 95
    background = render_background(camera, domain, np.random.default_rng(2))
    assert background.image.shape == (128, 64, 3) and not background.parts.any()


def test_equal_generators_give_equal_drawings_and_people():
    person, camera = _cast()
    assert _cast() == (person, camera)
    first, second = (_draw(person, camera, seed=7, bystanders=[person]) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.parts, second.parts)
    assert (first.image != _draw(person, camera, seed=8).image).any()


@pytest.mark.parametrize("tight", [False, True])
def test_labelled_and_detected_boxes_show_the_same_scene(tight):
    """And leave the generator in the same state."""
    domain = replace(CALM, box_jitter=0.0, box_bias=(1.0, 1.0)) if tight else CALM
    person, camera = _cast(domain)
    one, two = np.random.default_rng(5), np.random.default_rng(5)
    detected = render_person(person, camera, domain, one)
    labelled = render_person(person, camera, domain, two, labelled_box=True)
    assert one.bit_generator.state == two.bit_generator.state
    assert np.array_equal(detected.image, labelled.image) == tight


def test_sizes_and_ranges():
    person, camera = _cast()
    drawing = _draw(person, camera, size=(96, 48))
    assert drawing.image.shape == (96, 48, 3) and drawing.parts.shape == (96, 48)
    with pytest.raises(ValueError, match=r"size .*\(4, 4\)"):
        _draw(person, camera, size=(4, 4))
