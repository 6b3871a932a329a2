"""The folder of fetched and converted checkpoints: ``ECA_ZOO_HOME``."""

import os
import sys
from pathlib import Path


def weights_folder() -> Path:
    """Absolute path of the folder for checkpoints and the local manifest; it need not exist.

    ``ECA_ZOO_HOME`` where it is set, else ``eca_zoo`` under the user's cache directory (``XDG_CACHE_HOME`` or
    ``~/.cache``; ``~/Library/Caches`` on macOS; ``LOCALAPPDATA`` on Windows).
    """
    chosen = os.environ.get('ECA_ZOO_HOME')
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == 'win32':
        cache = os.environ.get('LOCALAPPDATA') or str(_user_home() / 'AppData' / 'Local')
    elif sys.platform == 'darwin':
        cache = str(_user_home() / 'Library' / 'Caches')
    else:
        cache = os.environ.get('XDG_CACHE_HOME') or str(_user_home() / '.cache')
    return Path(cache) / 'eca_zoo'


def _user_home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # A container may run as a user without a home. Nothing is found there, and whoever writes is told what to set.
        return Path('/nonexistent')


def site_manifest_path() -> Path | None:
    """Absolute path of the manifest of a site, such as that of its mirror: ``ECA_ZOO_MANIFEST``; None where unset."""
    chosen = os.environ.get('ECA_ZOO_MANIFEST')
    return Path(chosen).expanduser().absolute() if chosen else None


def local_manifest_path() -> Path:
    """Path of the manifest that lists what was fetched or converted on this machine; it need not exist."""
    return weights_folder() / 'weights_manifest.yaml'
