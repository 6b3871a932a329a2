"""Builds a detector of one of the three systems on a backbone."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from eca_zoo.detection.networks.anchors import Anchors
from eca_zoo.detection.networks.detectors import Detector, FasterRcnn, MaskRcnn, RetinaNet
from eca_zoo.detection.networks.proposals import ProposalNetwork, ProposalSettings
from eca_zoo.detection.networks.pyramid import (
    Body,
    Halved,
    PyramidBackbone,
    TwoMoreConvolved,
    create_body,
    freeze_stages,
    given_body,
)
from eca_zoo.detection.networks.retinanet import RetinaNetHead
from eca_zoo.detection.networks.roi_heads import DetectionSettings, RoiHeads
from eca_zoo.detection.networks.transform import IMAGENET_MEAN, IMAGENET_STD, DetectionTransform
from eca_zoo.errors import InputError

#: Anchors of 32 pixels at stride 4, of twice as many at each further level.
_PROPOSAL_SIZES = tuple((8.0 * stride,) for stride in (4, 8, 16, 32, 64))
#: Three sizes a level, a third of an octave apart, from 32 pixels at stride 8.
_RETINANET_SIZES = tuple(tuple(4.0 * stride * 2 ** (i / 3) for i in range(3)) for stride in (8, 16, 32, 64, 128))


@dataclass(frozen=True)
class DetectorOptions:
    """What a caller may choose of a detector; the values here are those of the authors' framework.

    Attributes:
        trainable_stages: of the backbone from its end: 4 are all but the stem, 5 all; None is 3 for a network that is
            made by name, so that stem and first stage are frozen, and leaves a given module as it is.
        fixed_statistics: batch norms of the backbone use their running statistics in training too.
        min_size: pixels that the shorter side of an image is resized to,
        max_size: unless the longer one would become longer than this.
        image_mean: of the pixels in [0, 1], by channel.
        image_std: of the pixels in [0, 1], by channel.
        anchor_sizes: pixels, a tuple for each level of the pyramid; for the two-stage systems with or without the level
            at stride 64. None takes the system's.
        anchor_ratios: heights over widths.
        channels: of the pyramid and the heads.
        hidden: width of the box head.
        finest_scale: boxes under twice as many pixels (root of the area) are pooled from stride 4.
        proposals_per_level: best anchors of a level that are looked at.
        proposals: of an image.
        proposal_nms_threshold: overlap above which the worse proposal goes.
        score_threshold: a detection's score is above it.
        nms_threshold: overlap within a class above which the worse detection goes.
        detections_per_image: at most.
    """

    trainable_stages: int | None = None
    fixed_statistics: bool = True
    min_size: int = 800
    max_size: int = 1333
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD
    anchor_sizes: tuple[tuple[float, ...], ...] | None = None
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    channels: int = 256
    hidden: int = 1024
    finest_scale: float = 56
    proposals_per_level: int = 1000
    proposals: int = 1000
    proposal_nms_threshold: float = 0.7
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        for name in ('score_threshold', 'nms_threshold', 'proposal_nms_threshold'):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f'{name} is from 0 to 1, not {getattr(self, name)}')
        for name in ('min_size', 'max_size', 'channels', 'hidden', 'proposals', 'detections_per_image'):
            if getattr(self, name) < 1:
                raise InputError(f'{name} is at least 1, not {getattr(self, name)}')

    @property
    def transform(self) -> DetectionTransform:
        """What is done to an image first."""
        return DetectionTransform(
            self.min_size, self.max_size, mean=self.image_mean, std=self.image_std
        )  # fmt: skip

    @property
    def settings(self) -> DetectionSettings:
        """Which boxes become detections."""
        return DetectionSettings(self.score_threshold, self.nms_threshold, self.detections_per_image)


def options_of(given: Mapping[str, Any]) -> DetectorOptions:
    """The options that were named, and the others as they are.

    Raises:
        InputError: there is no such option, or not that value.
    """
    known = [field.name for field in fields(DetectorOptions)]
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
            raise InputError(f'a detector has no option {name!r}; the nearest are {", ".join(nearest)}')
    return DetectorOptions(**given)


def coco_categories() -> dict[int, str]:
    """COCO's 80 category ids, from 1 to 90 with gaps, and their names."""
    names = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta['categories']
    return {i: name for i, name in enumerate(names) if name not in ('__background__', 'N/A')}


def build_detector(
    system: str,
    backbone: str | nn.Module,
    categories: Mapping[int, str],
    options: DetectorOptions,
    pretrained_backbone: bool = False,
    backbone_kwargs: Mapping[str, Any] | None = None,
) -> Detector:
    """A detector with random heads.

    Args:
        system: ``fasterrcnn``, ``maskrcnn`` or ``retinanet``.
        backbone: name in timm's registry, or a feature extractor with timm's ``feature_info``.
        categories: ids and names.
        options: see there.
        pretrained_backbone: load the weights that the name of the backbone stands for.
        backbone_kwargs: further arguments of its entry point.

    Raises:
        InputError: the backbone does not fit.
    """
    make = {'fasterrcnn': _two_stage, 'maskrcnn': _two_stage, 'retinanet': _retinanet}[system]
    lowest = 8 if system == 'retinanet' else 4
    if isinstance(backbone, nn.Module):
        if pretrained_backbone or backbone_kwargs:
            raise InputError('a backbone that is a module has its weights and arguments already; name it instead')
        body = given_body(backbone, lowest)
    else:
        body = create_body(backbone, lowest, pretrained_backbone, **(backbone_kwargs or {}))
    stages = options.trainable_stages
    if stages is None and not isinstance(backbone, nn.Module):
        stages = 3
    if stages is not None:
        freeze_stages(body, stages)
    return make(system, body, categories, options)


def _two_stage(system: str, body: Body, categories: Mapping[int, str], options: DetectorOptions) -> FasterRcnn:
    sizes = options.anchor_sizes or _PROPOSAL_SIZES
    if len(sizes) not in (4, 5):
        raise InputError(f'anchor_sizes has 4 or 5 tuples, one a level (strides 4 to 32 or 64), not {len(sizes)}')
    extra: type[ExtraFPNBlock] | None = Halved if len(sizes) == 5 else None
    backbone = PyramidBackbone(body, 4, options.channels, extra, options.fixed_statistics)
    rpn = ProposalNetwork(options.channels, _anchors(backbone, sizes, options))
    has_masks = system == 'maskrcnn'
    heads = RoiHeads(
        options.channels, len(categories), backbone.strides[:4], has_masks, options.hidden, options.finest_scale
    )
    proposals = ProposalSettings(options.proposals_per_level, options.proposals, options.proposal_nms_threshold)
    make = MaskRcnn if has_masks else FasterRcnn
    return make(backbone, rpn, heads, categories, options.transform, options.settings, proposals)


def _retinanet(system: str, body: Body, categories: Mapping[int, str], options: DetectorOptions) -> RetinaNet:
    sizes = options.anchor_sizes or _RETINANET_SIZES
    if len(sizes) != 5:
        raise InputError(f'anchor_sizes has 5 tuples, one a level (strides 8 to 128), not {len(sizes)}')
    backbone = PyramidBackbone(body, 8, options.channels, TwoMoreConvolved, options.fixed_statistics)
    anchors = _anchors(backbone, sizes, options)
    head = RetinaNetHead(options.channels, anchors.per_place, len(categories))
    return RetinaNet(backbone, head, anchors, categories, options.transform, options.settings)


def _anchors(backbone: PyramidBackbone, sizes: Any, options: DetectorOptions) -> Anchors:
    if len({len(level) for level in sizes}) != 1 or not all(size > 0 for level in sizes for size in level):
        raise InputError('anchor_sizes has equally many positive sizes for each level')
    return Anchors(backbone.strides, tuple(map(tuple, sizes)), tuple(options.anchor_ratios))
