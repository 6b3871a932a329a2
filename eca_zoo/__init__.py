"""ECA-Net for timm: importing this package registers the networks with timm's model factory."""

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eca_zoo.models import EcaLayer

__all__ = ['EcaLayer']

# The console script imports torch only when a command needs it, so that --help answers at once; `eca_zoo.models` is
# imported by every command that builds a network.
_IS_CONSOLE_SCRIPT = bool(sys.argv) and PurePath(sys.argv[0]).name in ('eca-zoo', 'eca-zoo.exe')

if not _IS_CONSOLE_SCRIPT:
    from eca_zoo import models  # noqa: F401


def __getattr__(name: str) -> Any:
    if name in __all__:
        from eca_zoo import models

        return getattr(models, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
