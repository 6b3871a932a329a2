"""The typed, validated reader of ``weights_manifest.yaml``: what each checkpoint is, where it is, and its hash."""

import functools
import logging
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec
import yaml

from eca_zoo.errors import InputError
from eca_zoo.files import read_text
from eca_zoo.resources import packaged_path
from eca_zoo.strict_yaml import Strict, key_and_reason, load_yaml, unknown_key
from eca_zoo.weights.reported import Reported
from eca_zoo.weights.weights_folder import local_manifest_path, site_manifest_path

_logger = logging.getLogger(__name__)

NAME = re.compile(r'[a-z0-9_]+\.[A-Za-z0-9_\-]+')
_SHA256 = re.compile(r'[0-9a-f]{64}')
_COMMIT = re.compile(r'[0-9a-f]{40}')
_REPO = re.compile(r'\w[\w.\-]*/\w[\w.\-]*')
_URL = re.compile(r'(https?|file)://\S+')
VERSION = 1


class ManifestError(InputError):
    """A manifest that cannot be trusted as it is: names the file, the key and the reason."""


def _check_relative(path: str, key: str) -> None:
    """Refuse a path that leaves the folder it is relative to."""
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    if not path or posix.is_absolute() or windows.drive or windows.root or '..' in posix.parts + windows.parts:
        raise ValueError(f'{key} must be a relative path that stays in its folder, not {path!r}')


class Transform(Strict, frozen=True):
    """The evaluation transform; ``input_size`` is (channels, height, width) in pixels, mean and std are for [0, 1]."""

    input_size: tuple[int, int, int]
    crop_pct: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.input_size) < 1:
            raise ValueError(f'input_size must be positive, not {list(self.input_size)}')
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f'crop_pct must be above 0 and at most 1, not {self.crop_pct}')
        if self.interpolation not in ('bilinear', 'bicubic', 'nearest', 'lanczos', 'box', 'hamming'):
            raise ValueError(f'interpolation {self.interpolation!r} is unknown')


class Resize(Strict, frozen=True):
    """What a detector's images are resized to; mean and std are for [0, 1].

    ``shorter``: pixels of the shorter side, unless the longer one would have more than ``longest``.
    """

    shorter: int
    longest: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 1 <= self.shorter <= self.longest:
            raise ValueError(f'shorter must be positive and at most longest, not {self.shorter} and {self.longest}')


class AuthorsFile(Strict, frozen=True):
    """A checkpoint as its authors published it, before conversion.

    ``size`` (bytes) and ``sha256`` are absent as long as nobody has recorded them.
    """

    file: str
    google_drive_id: str | None = None
    baidu_share: str | None = None
    baidu_code: str | None = None
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check_relative(self.file, 'file')
        _check_hash(self.sha256)

    @property
    def url(self) -> str | None:
        """The authors' link."""
        return f'https://drive.google.com/file/d/{self.google_drive_id}' if self.google_drive_id else None


class HubSource(Strict, frozen=True):
    """A file in a Hugging Face Hub repository, pinned to a commit."""

    repo: str
    revision: str
    file: str = 'model.safetensors'

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise ValueError(f'repo must be ORG/NAME, not {self.repo!r}')
        if not _COMMIT.fullmatch(self.revision):
            raise ValueError(f'revision must be a full commit hash (40 hexadecimal digits), not {self.revision!r}')
        _check_relative(self.file, 'file')


class Source(Strict, frozen=True):
    """One place to get a checkpoint from: exactly one of the four keys.

    ``package``: a path under ``eca_zoo/packaged``. ``file``: a path under ``ECA_ZOO_HOME``. ``url``: an https,
    http or file URL. ``hub``: a file on the Hugging Face Hub.
    """

    package: str | None = None
    file: str | None = None
    url: str | None = None
    hub: HubSource | None = None

    def __post_init__(self) -> None:
        given = [key for key in ('package', 'file', 'url', 'hub') if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f'a source has exactly one of package, file, url, hub; found {given or "none"}')
        for key in ('package', 'file'):
            if getattr(self, key) is not None:
                _check_relative(getattr(self, key), key)
        if self.url is not None and not _URL.fullmatch(self.url):
            raise ValueError(f'url must start with https://, http:// or file://, not {self.url!r}')

    def __str__(self) -> str:
        if self.hub is not None:
            return f'hub:{self.hub.repo}@{self.hub.revision[:12]}/{self.hub.file}'
        return self.url or f'{"package" if self.package else "file"}:{self.package or self.file}'


class Checkpoint(Strict, frozen=True):
    """The converted safetensors file: ``size`` in bytes, ``sha256`` of its bytes, where it can be had."""

    size: int
    sha256: str
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        _check_hash(self.sha256)
        if self.size < 1:
            raise ValueError(f'size must be positive, not {self.size}')
        if not self.sources:
            raise ValueError('sources must list at least one place')


class Entry(Strict, frozen=True):
    """One checkpoint under its name ``architecture.tag``; a classifier has a ``transform``, a detector a ``resize``.

    ``other_kernel_sizes``: those that it may have as well, where its authors' name leaves that open. ``categories``:
    ids and names of a detector's classes; without them those of COCO, or 1, 2, ....
    """

    num_classes: int
    dataset: str
    license: str
    transform: Transform | None = None
    resize: Resize | None = None
    kernel_sizes: tuple[int, ...] | None = None
    other_kernel_sizes: tuple[int, ...] | None = None
    categories: dict[int, str] | None = None
    description: str | None = None
    paper: str | None = None
    notes: str | None = None
    reported: Reported | None = None
    authors_file: AuthorsFile | None = msgspec.field(default=None, name='original')
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f'num_classes must be positive, not {self.num_classes}')
        for sizes in (self.kernel_sizes or (), self.other_kernel_sizes or ()):
            if any(size < 1 or size % 2 == 0 for size in sizes):
                raise ValueError(f'kernel_sizes must be odd and positive, not {list(sizes)}')
        if (self.transform is None) == (self.resize is None):
            raise ValueError('a classifier has the key transform, and a detector resize')
        if self.categories is not None and len(self.categories) != self.num_classes:
            raise ValueError(f'categories has {len(self.categories)} names, and num_classes is {self.num_classes}')

    @property
    def is_detector(self) -> bool:
        """Whether it is a detector's and not a classifier's."""
        return self.resize is not None

    @property
    def image_transform(self) -> Transform:
        """A classifier's transform.

        Raises:
            ManifestError: it is a detector's entry.
        """
        if self.transform is None:
            raise ManifestError(f"{self.description or 'an entry'}: it has a detector's resize and no transform")
        return self.transform


class Manifest(Strict, frozen=True):
    """All entries by name."""

    models: dict[str, Entry]
    version: int = VERSION

    def tags(self, architecture: str) -> list[str]:
        """The names ``architecture.tag`` of one architecture, in the manifest's order."""
        return [name for name in self.models if name.split('.', 1)[0] == architecture]


def _check_hash(sha256: str | None) -> None:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f'sha256 must be 64 lower-case hexadecimal digits, not {sha256!r} ({len(sha256)} characters)')


def parse_manifest(text: str, path: str | Path) -> Manifest:
    """Check and type the manifest ``text``, which was read from ``path``.

    Raises:
        ManifestError: it is no YAML, or a key is unknown, missing, repeated, of a wrong type or out of range.
    """
    try:
        raw = load_yaml(text)
    except ValueError as error:
        raise ManifestError(f'{path}: not a readable manifest: {error}') from None
    if not isinstance(raw, dict) or not isinstance(raw.get('models'), dict):
        raise ManifestError(f'{path}: models: a manifest is a mapping with the keys version and models')
    if raw.get('version') != VERSION:
        raise ManifestError(f'{path}: version: expected {VERSION}, found {raw.get("version")!r}')
    for key in raw.keys() - {'version', 'models'}:
        raise ManifestError(f'{path}: {key}: {unknown_key(str(key), ("version", "models"))}')
    return Manifest(models={name: _parse_entry(name, entry, path) for name, entry in raw['models'].items()})


def _parse_entry(name: Any, raw: Any, path: str | Path) -> Entry:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ManifestError(f'{path}: models.{name}: a name is architecture.tag, such as eca_resnet50.k3557_in1k')
    try:
        return msgspec.convert(raw, Entry)
    except (msgspec.ValidationError, TypeError, OverflowError) as error:
        key, reason = key_and_reason(error, Entry)
        raise ManifestError(f'{path}: {".".join(filter(None, ["models", name, key]))}: {reason}') from None


def read_manifest(path: Path) -> Manifest:
    """Read and check one manifest file.

    Raises:
        ManifestError: it cannot be read, or its content is refused; the text names file, key and reason.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise ManifestError(f'{path}: cannot read the manifest: {reason}') from None
    return _parse_once(text, path)


# By its text: what the file system says of a file can be the same after it was changed.
_parse_once = functools.lru_cache(maxsize=8)(parse_manifest)


def packaged_manifest() -> Manifest:
    """The manifest that travels with the package."""
    return read_manifest(packaged_path('weights_manifest.yaml'))


def load_manifest() -> Manifest:
    """The packaged manifest, extended by the site's (``ECA_ZOO_MANIFEST``) and by the local one (``ECA_ZOO_HOME``).

    Where two of them know a hash for one name and they differ, the packaged hash wins over the site's and that one over
    the local one; a warning says so.

    Raises:
        ManifestError: one of the files is refused.
    """
    manifest = packaged_manifest()
    for path in further_manifests():
        manifest = _extended(manifest, path)
    return manifest


def usable_manifest() -> Manifest:
    """What ``load_manifest`` gives, without the site's or the local manifest where it is refused; a warning says so."""
    manifest = packaged_manifest()
    for path in further_manifests():
        try:
            manifest = _extended(manifest, path)
        except ManifestError as error:
            _warn_once(f'{error}; what it lists is not known until it is mended')
    return manifest


def further_manifests() -> list[Path]:
    """The manifests beside the packaged one: the site's, which must exist if it is named, and the local one if any."""
    site = site_manifest_path()
    local = local_manifest_path()
    return ([] if site is None else [site]) + ([] if is_absent(local) else [local])


def _check_site(path: Path) -> None:
    if path == site_manifest_path() and is_absent(path):
        raise ManifestError(f'{path}: there is no such manifest; correct ECA_ZOO_MANIFEST, or unset it')


def _extended(manifest: Manifest, path: Path) -> Manifest:
    """``manifest`` with what the one at ``path`` adds."""
    _check_site(path)
    models = dict(manifest.models)
    for name, entry in read_manifest(path).models.items():
        models[name] = _merge(name, models[name], entry, path) if name in models else entry
    return Manifest(models=models)


@functools.lru_cache(maxsize=8)
def _warn_once(text: str) -> None:
    _logger.warning('%s', text)


def is_absent(path: Path) -> bool:
    """Whether there is no such file; one that may not be read is not absent."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _merge(name: str, packaged: Entry, local: Entry, path: Path) -> Entry:
    """``packaged`` with what ``local`` adds: hashes that the package does not know, other sources, which come first."""
    authors_file, checkpoint = packaged.authors_file, packaged.checkpoint
    if authors_file is None or authors_file.sha256 is None:
        authors_file = local.authors_file or authors_file
    elif local.authors_file is not None and local.authors_file.sha256 not in (None, authors_file.sha256):
        _logger.warning(
            "%s: %s: its hash of the authors' file differs from the packaged one, which is used", path, name
        )
    if checkpoint is None:
        checkpoint = local.checkpoint
    elif local.checkpoint is not None:
        if local.checkpoint.sha256 == checkpoint.sha256:
            sources = dict.fromkeys(local.checkpoint.sources + checkpoint.sources)
            checkpoint = msgspec.structs.replace(checkpoint, sources=tuple(sources))
        else:
            _logger.warning(
                '%s: %s: its SHA-256 %s differs from the packaged %s, which is used',
                path, name, local.checkpoint.sha256, checkpoint.sha256,
            )  # fmt: skip
    kernel_sizes = packaged.kernel_sizes
    if checkpoint is not None and checkpoint is local.checkpoint and local.kernel_sizes == packaged.other_kernel_sizes:
        kernel_sizes = local.kernel_sizes
    return msgspec.structs.replace(
        packaged, authors_file=authors_file, checkpoint=checkpoint, kernel_sizes=kernel_sizes
    )  # fmt: skip


def dump_manifest(manifest: Manifest) -> str:
    """The manifest as YAML text that ``parse_manifest`` reads back to an equal manifest."""
    raw = {'version': manifest.version, 'models': msgspec.to_builtins(manifest.models)}
    return yaml.safe_dump(raw, sort_keys=False, width=120, default_flow_style=None)
