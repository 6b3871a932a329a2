"""timm's pretrained cfgs of a network, made from its record and the manifest."""

from typing import TYPE_CHECKING, Any

import msgspec
from timm.models import DefaultCfg, PretrainedCfg, generate_default_cfgs

from eca_zoo.resources import packaged_path
from eca_zoo.weights.manifest import Entry, Manifest, Source, Transform
from eca_zoo.weights.weights_folder import weights_folder

if TYPE_CHECKING:
    from eca_zoo.models.registry import Architecture

#: The fields of a cfg that say where weights come from; ``building`` compares them to tell our cfgs from a user's.
LOCATION_FIELDS = ('url', 'file', 'state_dict', 'hf_hub_id', 'hf_hub_filename', 'source')
#: The evaluation transform of the authors' code.
AUTHORS_TRANSFORM = Transform((3, 224, 224), 0.875, 'bilinear', (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def default_cfg_of(architecture: 'Architecture', manifest: Manifest) -> DefaultCfg:
    """timm's cfgs of a network: one a tag for its manifest entries, or one without a tag where there are none."""
    cfgs: dict[str, dict[str, Any] | PretrainedCfg] = {
        name: _cfg_of_entry(manifest.models[name], architecture) for name in manifest.tags(architecture.name)
    }
    if not cfgs:
        cfgs[architecture.name] = _cfg(architecture.transform, architecture)
    return generate_default_cfgs(cfgs)[architecture.name]


def _cfg_of_entry(entry: Entry, architecture: 'Architecture') -> PretrainedCfg:
    location = _location(entry.checkpoint.sources[0]) if entry.checkpoint else {}
    return _cfg(
        entry.image_transform,
        architecture,
        num_classes=entry.num_classes,
        license=entry.license,
        description=entry.description,
        origin_url=entry.reported.source if entry.reported else None,
        paper_ids=entry.paper,
        **location,
    )


def _cfg(transform: Transform, architecture: 'Architecture', **fields: Any) -> PretrainedCfg:
    # All the networks end at stride 32.
    pool_size = tuple(-(-side // 32) for side in transform.input_size[1:])
    return PretrainedCfg(
        pool_size=pool_size, **msgspec.structs.asdict(transform), **architecture.cfg_fields, **fields
    )  # fmt: skip


def _location(source: Source) -> dict[str, Any]:
    """timm's fields for ``source``: they make the name count as pretrained; loading goes through ``weights``."""
    if source.package is not None:
        return {'file': str(packaged_path(source.package))}
    if source.file is not None:
        return {'file': str(weights_folder() / source.file)}
    if source.url is not None:
        return {'url': source.url}
    assert source.hub is not None
    return {'hf_hub_id': f'{source.hub.repo}@{source.hub.revision}', 'hf_hub_filename': source.hub.file}
