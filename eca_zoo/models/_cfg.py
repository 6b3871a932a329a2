"""timm's pretrained cfgs, made from the manifest."""

from collections.abc import Mapping
from typing import Any

from timm.models import DefaultCfg, PretrainedCfg, generate_default_cfgs

from eca_zoo.resources import packaged_path
from eca_zoo.weights.manifest import Entry, Manifest, Source
from eca_zoo.weights.weights_folder import weights_folder

#: The fields of a cfg that say where weights come from; ``_build`` compares them to tell our cfgs from a user's.
LOCATION_FIELDS = ('url', 'file', 'state_dict', 'hf_hub_id', 'hf_hub_filename', 'source')


def default_cfgs_of(manifest: Manifest, architectures: Mapping[str, Mapping[str, Any]]) -> dict[str, DefaultCfg]:
    """Architecture to timm's cfgs, one a tag, for every manifest entry of the ``architectures``.

    Args:
        manifest: packaged and local entries.
        architectures: architecture to the cfg fields that belong to the network and not to a checkpoint, such as
            ``first_conv`` and ``classifier``.
    """
    cfgs: dict[str, dict[str, Any] | PretrainedCfg] = {}
    for name, entry in manifest.models.items():
        architecture = name.split('.', 1)[0]
        if architecture in architectures:
            cfgs[name] = _pretrained_cfg(entry, architectures[architecture])
    return generate_default_cfgs(cfgs)


def _pretrained_cfg(entry: Entry, network_fields: Mapping[str, Any]) -> PretrainedCfg:
    transform = entry.transform
    location = _location(entry.checkpoint.sources[0]) if entry.checkpoint else {}
    return PretrainedCfg(
        input_size=transform.input_size,
        # All the networks end at stride 32.
        pool_size=tuple(-(-side // 32) for side in transform.input_size[1:]),
        crop_pct=transform.crop_pct,
        interpolation=transform.interpolation,
        mean=transform.mean,
        std=transform.std,
        num_classes=entry.num_classes,
        license=entry.license,
        description=entry.description,
        origin_url=entry.reported.source if entry.reported else None,
        paper_ids=entry.paper,
        **location,
        **network_fields,
    )


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
