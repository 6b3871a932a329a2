"""What a recipe fixes: one record, whose keys have timm's names where timm has them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eca_zoo.vocabulary import TIMM_NAMES

Number = int | float
OPTIMISATION, SCHEDULE, AUGMENTATION, LOSS, NETWORK, NUMERICS = (
    'optimisation', 'learning rate', 'augmentation', 'loss', 'network', 'numerics',
)  # fmt: skip
INITIALISATIONS = ('authors', 'timm')
CLIP_MODES = ('norm', 'value', 'agc')
MIXUP_MODES = ('batch', 'pair', 'elem')
ERASE_MODES = ('const', 'rand', 'pixel')
CROP_MODES = ('rrc', 'rkrc', 'rkrr')
INTERPOLATIONS = ('bilinear', 'bicubic', 'nearest', 'lanczos', 'box', 'hamming', 'random')
SCHEDULES = ('cosine', 'tanh', 'step', 'multistep', 'poly', 'wsd', 'rsqrt', 'constant')
LR_SCALES = ('linear', 'sqrt')
AMP_DTYPES = ('float16', 'bfloat16')
PREPROCESS = ('exact', 'fast')
SYSTEMS = ('fasterrcnn', 'maskrcnn', 'retinanet')
# Of detectors alone; and those of a network, its images and its loss that detectors have too.
_OF_DETECTORS_ALONE = ('group_size', 'pretrained_backbone')
_OF_DETECTORS_TOO = (
    'hflip', 'system', 'model', 'pretrained', 'freeze', 'freeze_norms', 'sync_bn', 'model_kwargs', 'model_ema',
    'model_ema_decay', 'model_ema_warmup',
)  # fmt: skip


def _key(default: Any, group: str, meaning: str, choices: tuple[str, ...] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={'group': group, 'meaning': meaning, 'choices': choices})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; a key's meaning is in its field's metadata, and ``docs/train.md`` lists them.

    The defaults are plain: no augmentation beyond crop and flip, no smoothing, no averaging.
    """

    epochs: int = _key(100, OPTIMISATION, 'times that every image is seen')
    batch_size: int = _key(256, OPTIMISATION, 'images of one step over all processes (in timm: of each process)')
    group_size: int = _key(1, OPTIMISATION, 'so many images in a row are all upright or all lying')
    grad_accum_steps: int = _key(1, OPTIMISATION, "parts that a process's share of a step is worked off in")
    drop_last: bool = _key(False, OPTIMISATION, 'leave out the last batch of an epoch where it is smaller')
    seed: int = _key(42, OPTIMISATION, 'of weights, order, augmentation and dropout')
    opt: str = _key('momentum', OPTIMISATION, "timm's name of the optimiser; momentum is SGD without Nesterov")
    momentum: float = _key(0.9, OPTIMISATION, 'of the optimiser, where it has one')
    weight_decay: float = _key(0.0, OPTIMISATION, 'weight decay')
    filter_bias_and_bn: bool = _key(True, OPTIMISATION, 'no weight decay on norms, biases and ECA filters')
    opt_eps: float | None = _key(None, OPTIMISATION, "epsilon of the optimiser (default: the optimiser's)")
    opt_betas: tuple[float, ...] | None = _key(None, OPTIMISATION, "betas of the optimiser (default: the optimiser's)")
    opt_kwargs: dict[str, Any] | None = _key(None, OPTIMISATION, 'further arguments of the optimiser')
    layer_decay: float | None = _key(None, OPTIMISATION, 'factor of the learning rate from each layer to the one below')
    layer_decay_min_scale: float = _key(0.0, OPTIMISATION, 'smallest factor of the layer decay')
    clip_grad: float | None = _key(None, OPTIMISATION, 'clip gradients at this value')
    clip_mode: str = _key('norm', OPTIMISATION, 'what is clipped', CLIP_MODES)

    lr: float | None = _key(None, SCHEDULE, 'learning rate (default: by lr_base)')
    lr_base: float = _key(0.1, SCHEDULE, 'learning rate for a batch of lr_base_size')
    lr_base_size: int = _key(256, SCHEDULE, 'batch size of lr_base')
    lr_base_scale: str | None = _key(
        None, SCHEDULE, 'how lr_base grows with the batch (default: by the optimiser, as in timm)', LR_SCALES
    )
    sched: str = _key('cosine', SCHEDULE, 'course of the learning rate', SCHEDULES)
    sched_on_updates: bool = _key(False, SCHEDULE, 'a function of the step, not of the epoch')
    warmup_epochs: int = _key(0, SCHEDULE, 'epochs in which it rises from warmup_lr')
    warmup_lr: float = _key(1e-5, SCHEDULE, 'where the warm-up begins')
    warmup_steps: int = _key(0, SCHEDULE, 'steps in which it rises, as a factor of all else, from warmup_factor to 1')
    warmup_factor: float = _key(1 / 3, SCHEDULE, 'where the warm-up by steps begins')
    warmup_prefix: bool = _key(False, SCHEDULE, 'the warm-up comes before the schedule and does not count in it')
    min_lr: float = _key(0.0, SCHEDULE, 'where cosine, tanh, poly, wsd and rsqrt end')
    decay_epochs: Number | None = _key(None, SCHEDULE, 'epochs of a step, or of the last phase of wsd and rsqrt')
    decay_milestones: tuple[int, ...] = _key((), SCHEDULE, 'first epochs, from 1, with a lower rate of multistep')
    decay_rate: float = _key(0.1, SCHEDULE, 'factor of a decay; the power of poly')
    cooldown_epochs: int = _key(0, SCHEDULE, 'epochs at min_lr after cosine, tanh and poly')
    lr_cycle_mul: float = _key(1.0, SCHEDULE, 'growth of the cycles of cosine, tanh and poly')
    lr_cycle_decay: float = _key(0.5, SCHEDULE, 'decay from cycle to cycle')
    lr_cycle_limit: int = _key(1, SCHEDULE, 'number of cycles')
    lr_k_decay: float = _key(1.0, SCHEDULE, "timm's k-decay of cosine and poly")
    lr_noise: tuple[float, ...] | None = _key(None, SCHEDULE, 'noise between these fractions of the schedule')
    lr_noise_pct: float = _key(0.67, SCHEDULE, 'limit of the noise')
    lr_noise_std: float = _key(1.0, SCHEDULE, 'deviation of the noise')

    img_size: int | None = _key(None, AUGMENTATION, "height and width in training (default: the network's)")
    val_img_size: int | None = _key(None, AUGMENTATION, 'height and width in validation (default: as in training)')
    crop_pct: float | None = _key(
        None, AUGMENTATION, "share that the crop keeps in validation (default: the network's)"
    )
    interpolation: str | None = _key(
        None, AUGMENTATION, "of the resize in validation (default: the network's)", INTERPOLATIONS[:-1]
    )
    mean: tuple[float, ...] | None = _key(None, AUGMENTATION, "of the channels (default: the network's)")
    std: tuple[float, ...] | None = _key(None, AUGMENTATION, "of the channels (default: the network's)")
    preprocess: str = _key('exact', AUGMENTATION, 'fast: the crop within the resize', PREPROCESS)
    no_aug: bool = _key(False, AUGMENTATION, 'resize and centre crop alone')
    train_crop_mode: str = _key('rrc', AUGMENTATION, "timm's kind of random crop", CROP_MODES)
    scale: tuple[float, float] | None = _key(None, AUGMENTATION, "area of the random crop (default: timm's, 0.08 to 1)")
    ratio: tuple[float, float] | None = _key(
        None, AUGMENTATION, "sides of the random crop (default: timm's, 3/4 to 4/3)"
    )
    train_interpolation: str = _key('bilinear', AUGMENTATION, 'of the random crop', INTERPOLATIONS)
    hflip: float = _key(0.5, AUGMENTATION, 'probability of a horizontal flip')
    vflip: float = _key(0.0, AUGMENTATION, 'probability of a vertical flip')
    color_jitter: float | None = _key(None, AUGMENTATION, 'of brightness, contrast and saturation')
    color_jitter_prob: float | None = _key(None, AUGMENTATION, 'probability of it (default: always)')
    grayscale_prob: float = _key(0.0, AUGMENTATION, 'probability of grey images')
    gaussian_blur_prob: float = _key(0.0, AUGMENTATION, 'probability of a blur')
    aa: str | None = _key(None, AUGMENTATION, "timm's policy: rand-m9-mstd0.5-inc1, original, v0, augmix-m3, ...")
    reprob: float = _key(0.0, AUGMENTATION, 'probability of random erasing')
    remode: str = _key('pixel', AUGMENTATION, 'what erased pixels become', ERASE_MODES)
    recount: int = _key(1, AUGMENTATION, 'most rectangles of random erasing')
    mixup: float = _key(0.0, AUGMENTATION, 'alpha of mixup; 0: none')
    cutmix: float = _key(0.0, AUGMENTATION, 'alpha of cutmix; 0: none')
    cutmix_minmax: tuple[float, float] | None = _key(None, AUGMENTATION, 'sides of the cutmix box, in place of alpha')
    mixup_prob: float = _key(1.0, AUGMENTATION, 'probability of mixing at all')
    mixup_switch_prob: float = _key(0.5, AUGMENTATION, 'probability of cutmix where both are on')
    mixup_mode: str = _key('batch', AUGMENTATION, 'what shares one draw', MIXUP_MODES)
    mixup_off_epoch: int = _key(0, AUGMENTATION, 'no mixing from this epoch on; 0: never off')

    smoothing: float = _key(0.0, LOSS, 'label smoothing')
    bce_loss: bool = _key(False, LOSS, 'binary cross-entropy of each class')
    bce_sum: bool = _key(False, LOSS, 'sum over the classes, not the mean')
    bce_target_thresh: float | None = _key(None, LOSS, 'targets above it are 1, others 0')
    bce_pos_weight: float | None = _key(None, LOSS, 'weight of the right classes')

    system: str | None = _key(None, NETWORK, 'kind of detector that is trained (default: a classifier)', SYSTEMS)
    model: str | None = _key(None, NETWORK, 'name of the network, where --model names none')
    data: str | None = _key(None, NETWORK, 'digits: data that are made here, where --data-dir names none')
    pretrained: bool = _key(False, NETWORK, 'begin with the weights that the name stands for')
    pretrained_backbone: bool = _key(False, NETWORK, 'begin with the weights that the name of the backbone stands for')
    num_classes: int | None = _key(None, NETWORK, "classes (default: the data set's)")
    init: str = _key('timm', NETWORK, "first weights: the authors' or timm's", INITIALISATIONS)
    drop: float = _key(0.0, NETWORK, 'dropout before the classifier')
    drop_path: float | None = _key(None, NETWORK, 'stochastic depth')
    drop_block: float | None = _key(None, NETWORK, 'drop block')
    global_pool: str | None = _key(None, NETWORK, "global pooling (default: the network's)")
    bn_momentum: float | None = _key(None, NETWORK, 'of batch norms')
    bn_eps: float | None = _key(None, NETWORK, 'of batch norms')
    head_init_scale: float | None = _key(None, NETWORK, "factor of the classifier's first weights")
    freeze: tuple[str, ...] = _key((), NETWORK, 'modules that are not trained, norms included: conv1 bn1 layer1')
    freeze_norms: bool = _key(False, NETWORK, 'keep the statistics of all batch norms')
    sync_bn: bool = _key(False, NETWORK, 'batch-norm statistics over all processes')
    grad_checkpointing: bool = _key(False, NETWORK, 'compute activations twice to save memory')
    model_kwargs: dict[str, Any] | None = _key(None, NETWORK, 'further arguments of the entry point')
    model_ema: bool = _key(False, NETWORK, 'average the weights too, and validate the average')
    model_ema_decay: float = _key(0.9998, NETWORK, 'decay of the average')
    model_ema_warmup: bool = _key(False, NETWORK, "timm's warm-up of the decay")

    amp: bool = _key(False, NUMERICS, 'autocast to amp_dtype')
    amp_dtype: str = _key('float16', NUMERICS, 'of autocast', AMP_DTYPES)
    channels_last: bool = _key(True, NUMERICS, 'memory format of weights and images')
    compile: str | None = _key(None, NUMERICS, 'backend of torch.compile')
    deterministic: bool = _key(False, NUMERICS, "torch's deterministic algorithms, for equal bits on a GPU")


@dataclass(frozen=True)
class ChosenRecipe:
    """A recipe as a run takes it.

    Attributes:
        name: of the file, without its extension.
        recipe: with everything that was overridden.
        overridden: the keys that the caller gave other values than the file.
    """

    name: str
    recipe: Recipe
    overridden: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """What tables call it: its name and what was overridden."""
        changes = ' '.join(f'{key}={_short(value)}' for key, value in self.overridden.items())
        return f'{self.name} {changes}'.rstrip()


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ','.join(map(str, value))
    return str(value)


def recipe_keys() -> dict[str, dataclasses.Field]:
    """The keys of a recipe by name, in order."""
    return {field.name: field for field in dataclasses.fields(Recipe)}


def keys_without_meaning(system: str | None) -> list[str]:
    """Keys that have no meaning for a detector of ``system``, or for a classifier where it is None."""
    if system is None:
        return list(_OF_DETECTORS_ALONE)
    groups, known = (AUGMENTATION, LOSS, NETWORK), (*_OF_DETECTORS_ALONE, *_OF_DETECTORS_TOO)
    return [name for name, field in recipe_keys().items() if field.metadata['group'] in groups and name not in known]


def recipe_as_markdown() -> str:
    """The keys as a Markdown table."""
    lines = ['| key | default | meaning |', '|---|---|---|']
    for name, field in recipe_keys().items():
        default = '' if field.default is None or field.default == () else f'`{str(field.default).lower()}`'
        choices = field.metadata['choices']
        meaning = field.metadata['meaning'] + (f': {", ".join(choices)}' if choices else '')
        others = ''.join(f', `{other}`' for other in TIMM_NAMES.get(name, ()))
        lines.append(f'| `{name}`{others} | {default} | {meaning} |')
    return '\n'.join(lines)
