"""The taxonomies that experts and data sets speak: Dronescapes, CamVid, Cityscapes; maps between them."""

from __future__ import annotations

from edgekit_runtime.modality import Taxonomy

DRONESCAPES = Taxonomy(
    name="dronescapes",
    classes=("land", "forest", "residential", "road", "little-objects", "water", "sky", "hill"),
    colours=(
        (0, 255, 0),
        (0, 127, 0),
        (255, 255, 0),
        (255, 255, 255),
        (255, 0, 0),
        (0, 0, 255),
        (0, 255, 255),
        (127, 127, 63),
    ),
)

CAMVID = Taxonomy(
    name="camvid",
    classes=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    colours=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore=11,
)

CITYSCAPES = Taxonomy(
    name="cityscapes",
    classes=(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    colours=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
)

TAXONOMIES = {taxonomy.name: taxonomy for taxonomy in (DRONESCAPES, CAMVID, CITYSCAPES)}
