"""A labelled data set as a user names it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ClassLevel = Literal['leaf', 'top']
CLASS_LEVELS: tuple[ClassLevel, ...] = ('leaf', 'top')
#: Value of ``DataSpec.real_labels`` that stands for the copy that timm carries.
PACKAGED = 'default'

#: Names of ImageNet's validation set, with its own labels and all of its classes.
IMAGENET_NAMES = ('imagenet-1k', 'imagenet', 'imagenet1k', 'ilsvrc2012')


@dataclass(frozen=True)
class DataSpec:
    """A labelled data set as a user names it.

    Attributes:
        root: folder, tar file, or cache folder of a hub data set.
        dataset: timm's name: empty for a folder or tar, else ``hfds/``, ``hfids/``, ``wds/``, ``tfds/`` or ``torch/``
            and a name.
        split: of the data set; a folder of this name under ``root`` is used if there is one.
        class_map: file with the class indices by name: one name a line, or JSON.
        ground_truth: file with the labels of images that lie in no class folders.
        class_level: folder that is an image's class: ``leaf`` the innermost one, ``top`` the first one below the root;
            by default the innermost one, where no two of them have one name.
        real_labels: ReaL labels of ImageNet validation images in place of their own: a file, or ``default`` or true
            for the copy that timm carries.
        valid_labels: class indices that results are restricted to: a file, ``imagenet-a`` or ``imagenet-r``.
        num_samples: images of a streamed data set that does not know it.
        input_key: field of the images; of a folder, file extensions separated by semicolons.
        target_key: field of the labels.
        input_img_mode: Pillow's mode that images are converted to; by default RGB, or L for one channel.
        skip_bad_images: count and list images that cannot be decoded; by default the first one ends the run.
        download: let timm download the data set.
        trust_remote_code: let a hub data set run its code.
        label: name in tables; made from the above if it is empty.
    """

    root: Path | None = None
    dataset: str = ''
    split: str = 'validation'
    class_map: Path | None = None
    ground_truth: Path | None = None
    class_level: ClassLevel | None = None
    real_labels: str | bool | None = None
    valid_labels: str | None = None
    num_samples: int | None = None
    input_key: str | None = None
    target_key: str | None = None
    input_img_mode: str | None = None
    skip_bad_images: bool = False
    download: bool = False
    trust_remote_code: bool = False
    label: str = ''

    def __post_init__(self) -> None:
        """Give the packaged ReaL labels one name."""
        if isinstance(self.real_labels, bool):
            object.__setattr__(self, 'real_labels', PACKAGED if self.real_labels else None)

    @property
    def name(self) -> str:
        """What tables and messages call it."""
        if self.label:
            return self.label
        if self.dataset:
            return self.dataset
        return self.root.resolve().name.removesuffix('.tar') if self.root is not None else ''

    @property
    def results_name(self) -> str:
        """What tables call the results on it: other labels, or a part of the classes, are another data set.

        With ReaL labels ``imagenet-1k`` is ``imagenet-1k-real``; with the classes of ImageNet-A alone it is
        ``imagenet-a-clean``, as timm calls it.
        """
        name = self.name
        if self.real_labels and 'real' not in name.lower():
            name = f'{name}-real'
        if self.valid_labels:
            part = Path(self.valid_labels).stem
            if name.lower() in IMAGENET_NAMES and part in ('imagenet-a', 'imagenet-r'):
                return f'{part}-clean'
            name = name if part in name.lower() else f'{name}-{part}'
        return name
