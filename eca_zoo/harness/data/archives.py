"""Files that lie in one piece in a tar, read by place, so that no tar is kept open."""

import io
import os
import tarfile

from eca_zoo.errors import InputError


def read_extent(path: str | os.PathLike[str], offset: int, size: int) -> io.BytesIO:
    """``size`` bytes of a file from ``offset`` on.

    Raises:
        OSError: they are not all there.
    """
    with open(path, 'rb') as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise OSError(f'the file ends after {len(content)} of its {size} bytes')
    return io.BytesIO(content)


def check_plain(member: tarfile.TarInfo, path: str | os.PathLike[str]) -> None:
    """Refuse a file that does not lie in one piece in the tar ``path``.

    Raises:
        InputError: it was stored without its holes.
    """
    if member.issparse():
        raise InputError(f'{path}: {member.name} is stored as a sparse file; pack the tar again without --sparse')
