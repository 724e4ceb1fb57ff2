"""The renderer: determinism, geometry, labels and the errors it raises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qaconv_lib.miniatures import (
    DOMAINS,
    PART_NAMES,
    Drawing,
    get_domain,
    render_background,
    render_frame,
    render_person,
    sample_camera,
    sample_family,
    sample_person,
)
from qaconv_lib.miniatures.domains import PART
from qaconv_lib.miniatures.geometry import FAR, Primitive, Raster
from qaconv_lib.miniatures.textures import plain

CALM = replace(DOMAINS["market"], occlusion=0.0, company=0.0, cut_feet=0.0, standing=0.0)


def _cast(domain=CALM, seed=0):
    rng = np.random.default_rng(seed)
    person = sample_person(domain, sample_family(domain, rng), rng)
    return person, sample_camera(domain, np.random.default_rng(0))  # scenes are built once each


def _area(drawing: Drawing, *names: str) -> float:
    return float(np.isin(drawing.parts, [PART[name] for name in names]).mean())


def _column(drawing: Drawing, *names: str) -> float:
    mask = np.isin(drawing.parts, [PART[name] for name in names])
    return float(np.nonzero(mask)[1].mean())


LEFT = ("left upper arm", "left forearm", "left thigh", "left shin", "left foot")
RIGHT = tuple(name.replace("left", "right") for name in LEFT)
BODY = ("head", "torso", "hips", *LEFT, *RIGHT, "bag")


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_every_domain_draws_pictures_with_valid_labels(name):
    domain = DOMAINS[name]
    person, camera = _cast(domain, 3)
    drawing = render_person(person, camera, domain, np.random.default_rng(1), bystanders=[person])
    assert drawing.image.shape == (128, 64, 3) and drawing.image.dtype == np.uint8
    assert drawing.parts.shape == (128, 64) and drawing.parts.dtype == np.uint8
    assert drawing.parts.max() < len(PART_NAMES)
    assert 15 < drawing.image.mean() < 240 and drawing.image.std() > 8
    assert 40 <= camera.jpeg_quality <= 95
    background = render_background(camera, domain, np.random.default_rng(2))
    assert background.image.shape == (128, 64, 3) and not background.parts.any()


def test_names_of_parts_are_unique_and_start_with_background():
    assert PART_NAMES[0] == "background" and len(set(PART_NAMES)) == len(PART_NAMES)


def test_equal_generators_give_equal_drawings_and_people():
    person, camera = _cast()
    assert _cast() == (person, camera)
    first, second = (
        render_person(person, camera, CALM, np.random.default_rng(7), bystanders=[person])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.parts, second.parts)
    other = render_person(person, camera, CALM, np.random.default_rng(8))
    assert (first.image != other.image).any()


def test_a_drawing_uses_the_same_randomness_whatever_the_box():
    person, camera = _cast()
    one, two = np.random.default_rng(5), np.random.default_rng(5)
    detected = render_person(person, camera, CALM, one)
    labelled = render_person(person, camera, CALM, two, labelled_box=True)
    assert one.bit_generator.state == two.bit_generator.state
    assert (detected.parts != labelled.parts).any()


def test_labelled_and_detected_boxes_show_the_same_pose():
    tight = replace(CALM, box_jitter=0.0, box_bias=(1.0, 1.0))
    person, camera = _cast(tight)
    for seed in range(4):
        detected = render_person(person, camera, tight, np.random.default_rng(seed))
        labelled = render_person(
            person, camera, tight, np.random.default_rng(seed), labelled_box=True
        )
        np.testing.assert_array_equal(detected.image, labelled.image)


def test_labelled_box_is_tight():
    person, camera = _cast()
    for seed in range(6):
        drawing = render_person(
            person, camera, CALM, np.random.default_rng(seed), labelled_box=True
        )
        rows, columns = np.nonzero(drawing.parts)
        assert rows.min() < 10 and rows.max() > 117
        assert columns.min() >= 0 and abs(columns.min() + columns.max() - 63) < 24


def test_parts_cover_sensible_shares():
    drawings = []
    for seed in range(5):
        person, camera = _cast(seed=seed)
        drawings.append(
            render_person(person, camera, CALM, np.random.default_rng(seed), labelled_box=True)
        )
    shares = {name: np.mean([_area(d, name) for d in drawings]) for name in PART_NAMES}
    assert 0.02 < shares["head"] < 0.10
    assert 0.06 < shares["torso"] < 0.25
    assert 0.2 < np.mean([_area(d, *BODY) for d in drawings]) < 0.6
    assert shares["other person"] == shares["occluder"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_left_and_right_follow_the_heading(seed):
    person, camera = _cast(seed=seed)
    front = render_person(person, camera, CALM, np.random.default_rng(seed), heading=0.0)
    back = render_person(person, camera, CALM, np.random.default_rng(seed), heading=np.pi)
    assert _column(front, *LEFT) > _column(front, *RIGHT)
    assert _column(back, *LEFT) < _column(back, *RIGHT)


def test_walking_right_shows_the_right_side():
    person, camera = _cast()
    person = replace(person, bag=replace(person.bag, kind="none"))
    right = render_person(person, camera, CALM, np.random.default_rng(0), heading=np.pi / 2)
    left = render_person(person, camera, CALM, np.random.default_rng(0), heading=-np.pi / 2)
    arms = ("right upper arm", "right forearm"), ("left upper arm", "left forearm")
    assert _area(right, *arms[0]) > _area(right, *arms[1])
    assert _area(left, *arms[0]) < _area(left, *arms[1])


def _red_share(person, camera, heading):
    drawing = render_person(
        person, camera, CALM, np.random.default_rng(4), heading=heading, labelled_box=True
    )
    pixels = drawing.image[drawing.parts == PART["torso"]].astype(float)
    return float((pixels[:, 0] > 1.6 * pixels[:, 1]).mean())


@pytest.mark.parametrize("place, seen_from", [("front", 0.0), ("back", np.pi)])
def test_a_print_shows_on_one_side_only(place, seen_from):
    person, camera = _cast()
    grey = (0.6, 0.6, 0.6)
    plain_pattern = replace(person.top.pattern, kind="plain")
    emblem = replace(
        person.top.emblem,
        place=place,
        shape="lines",
        colour=(0.9, 0.05, 0.05),
        width=0.25,
        height=0.2,
        drop=0.2,
    )
    top = replace(
        person.top,
        kind="tshirt",
        colour=grey,
        collar="none",
        opening=0.0,
        sleeve=0.3,
        collar_colour=grey,
        pattern=plain_pattern,
        emblem=emblem,
        tucked=False,
    )
    person = replace(
        person,
        top=top,
        bag=replace(person.bag, kind="none", handheld="none"),
        headwear=replace(person.headwear, scarf=False),
    )
    camera = replace(
        camera, cast=(1.0, 1.0, 1.0), light_colour=(1.0, 1.0, 1.0), noise=0.0, blur=0.2, motion=0.0
    )
    assert _red_share(person, camera, seen_from) > 0.04
    assert _red_share(person, camera, seen_from + np.pi) < 0.01


def test_a_backpack_shows_from_behind_and_its_straps_from_the_front():
    person, camera = _cast()
    person = replace(person, bag=replace(person.bag, kind="backpack"))
    front = render_person(person, camera, CALM, np.random.default_rng(0), heading=0.0)
    back = render_person(person, camera, CALM, np.random.default_rng(0), heading=np.pi)
    assert _area(back, "bag") > 0.04
    assert 0.001 < _area(front, "bag") < _area(back, "bag")


def test_obstacles_and_company_have_their_own_labels():
    person, camera = _cast()
    blocked = replace(CALM, occlusion=1.0)
    crowded = replace(CALM, company=1.0)
    occluded, company = 0, 0
    for seed in range(6):
        rng = np.random.default_rng
        occluded += _area(render_person(person, camera, blocked, rng(seed)), "occluder") > 0
        company += (
            _area(
                render_person(person, camera, crowded, rng(seed), bystanders=[person]),
                "other person",
            )
            > 0
        )
    assert occluded >= 4 and company >= 3


def test_members_of_a_family_share_most_but_not_everything():
    domain = DOMAINS["market"]
    rng = np.random.default_rng(0)
    family = sample_family(domain, rng)
    people = [sample_person(domain, family, rng) for _ in range(20)]
    assert len(set(people)) == 20
    assert {person.top.kind for person in people} == {family.top.kind}
    colours = np.array([person.top.colour for person in people])
    assert np.abs(colours - family.top.colour).max() < 0.25
    assert sum(person.bottom.kind == family.bottom.kind for person in people) >= 10


def test_other_sizes():
    person, camera = _cast()
    drawing = render_person(person, camera, CALM, np.random.default_rng(0), size=(96, 48))
    assert drawing.image.shape == (96, 48, 3) and drawing.parts.shape == (96, 48)


def test_a_sphere_is_hit_where_its_equation_says():
    raster = Raster((64, 64), (-32.0, -32.0, 32.0, 32.0), 100.0)
    centre, radius = np.array([0.3, -0.2, -5.0]), 0.8
    ball = Primitive(
        centre,
        centre,
        (radius, radius),
        np.eye(3),
        (1, 1, 1),
        plain((0.5, 0.5, 0.5)),
        1,
        np.zeros(3),
    )
    raster.draw(ball, np.eye(3), np.zeros(3))
    x, y = np.meshgrid(raster.slope_x, raster.slope_y)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1)
    a, b = (rays**2).sum(-1), rays @ centre
    under = b * b - a * (centre @ centre - radius**2)
    expected = np.where(under > 0, (b - np.sqrt(np.maximum(under, 0))) / a, FAR)
    agree = np.isclose(raster.depth, expected, rtol=1e-4)
    assert agree.mean() > 0.999 and (raster.depth < FAR).sum() > 300


def test_a_round_cone_is_the_union_of_its_spheres():
    start, end = np.array([-0.5, -0.4, -5.0]), np.array([0.6, 0.5, -5.6])
    raster = Raster((64, 64), (-32.0, -32.0, 32.0, 32.0), 100.0)
    shape = Primitive(
        start, end, (0.5, 0.2), np.eye(3), (1, 1, 1), plain((0.5, 0.5, 0.5)), 1, np.zeros(3)
    )
    raster.draw(shape, np.eye(3), np.zeros(3))
    swept = Raster((64, 64), (-32.0, -32.0, 32.0, 32.0), 100.0)
    for share in np.linspace(0, 1, 200):
        centre, radius = start + share * (end - start), 0.5 - 0.3 * share
        swept.draw(
            Primitive(
                centre,
                centre,
                (radius, radius),
                np.eye(3),
                (1, 1, 1),
                plain((0.5, 0.5, 0.5)),
                1,
                np.zeros(3),
            ),
            np.eye(3),
            np.zeros(3),
        )
    both = (raster.depth < FAR) & (swept.depth < FAR)
    assert ((raster.depth < FAR) == (swept.depth < FAR)).mean() > 0.995
    np.testing.assert_allclose(raster.depth[both], swept.depth[both], atol=0.02)


def test_bad_input_is_named():
    person, camera = _cast()
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown domain 'mars'"):
        get_domain("mars")
    with pytest.raises(TypeError, match="domain must be a Domain"):
        sample_camera("market", rng)
    with pytest.raises(TypeError, match="family must be a Family"):
        sample_person(CALM, "family", rng)
    with pytest.raises(TypeError, match="camera must be a Camera"):
        render_person(person, None, CALM, rng)
    with pytest.raises(TypeError, match="person must be a Person"):
        render_person(None, camera, CALM, rng)
    with pytest.raises(TypeError, match="bystanders must be Persons"):
        render_person(person, camera, CALM, rng, bystanders=["somebody"])
    with pytest.raises(ValueError, match="size must be"):
        render_background(camera, CALM, rng, size=(4, 4))
    with pytest.raises(ValueError, match="occlusion of domain 'market'"):
        replace(CALM, occlusion=2.0)


def test_people_stand_in_the_boxes_of_a_frame():
    person, camera = _cast()
    camera = replace(camera, noise=0.0)
    frame, boxes = render_frame([person] * 3, camera, CALM, np.random.default_rng(1))
    empty, none = render_frame([], camera, CALM, np.random.default_rng(1))
    assert frame.shape == empty.shape == (280, 500, 3) and none == []
    changed = np.abs(frame.astype(int) - empty).sum(axis=2) > 30
    centres = [x + width / 2 for x, _, width, _ in boxes]
    assert centres == sorted(centres) and 0 < centres[0] and centres[-1] < 500
    for x, y, width, height in boxes:
        assert changed[y : y + height, x : x + width].mean() > 0.2
        changed[y - 5 : y + height + 25, x - 25 : x + width + 25] = False  # with its shadow
    assert changed.mean() < 0.02
    with pytest.raises(TypeError, match="must be Persons"):
        render_frame(["somebody"], camera, CALM, np.random.default_rng(1))
