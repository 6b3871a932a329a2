"""Which files of a folder, a tar or a shard count: links, copies, damage, names that differ in their spelling."""

import os
import shutil
import tarfile
import unicodedata
from pathlib import Path

import pytest

from eca_zoo.errors import InputError
from eca_zoo.harness.data.batches import Loader, PixelTransform
from eca_zoo.harness.data.data_spec import DataSpec
from eca_zoo.harness.data.datasets import OpenData, open_data
from tests.harness.image_sets import add_file, digits, encoded, write_named, write_shards, write_tar

PICTURE = encoded(digits()[3][0])


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PICTURE)
    return root


def tar_of(path: Path, *names: str) -> Path:
    with tarfile.open(path, 'w') as tar:
        for name in names:
            add_file(tar, name, PICTURE)
    return path


def listed(root: Path, **asked: object) -> OpenData:
    return open_data(DataSpec(root=root, **asked))


def twice_remark(root: Path, names: str) -> tuple[str, ...]:
    return (f'{root}: what is there more than once counts once ({names})',)


def test_a_link_to_an_image_that_is_there_counts_no_second_time(tmp_path):
    root = files(tmp_path / 'd', 'a/1.png', 'b/2.png')
    (root / 'a' / '0.png').symlink_to('1.png')
    (root / 'b' / '3.png').symlink_to('../a/1.png')
    images = listed(root).images
    assert images.names() == ['a/1.png', 'b/2.png']
    assert images.remarks == twice_remark(root, '2: a/0.png, b/3.png')


def test_links_to_files_elsewhere_are_images(tmp_path):
    files(tmp_path / 'store', '1.png', '2.png')
    root = tmp_path / 'd'
    for name, target in (('a/x.png', '1.png'), ('a/y.png', '1.png'), ('b/z.png', '2.png')):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(tmp_path / 'store' / target)
    images = listed(root).images
    assert images.names() == ['a/x.png', 'b/z.png']
    assert images.remarks == twice_remark(root, '1: a/y.png')


def test_one_file_that_is_linked_to_from_two_classes_is_an_error(tmp_path):
    files(tmp_path / 'store', '1.png')
    root = tmp_path / 'd'
    for name in ('a', 'b'):
        (root / name).mkdir(parents=True)
        (root / name / 'x.png').symlink_to(tmp_path / 'store' / '1.png')
    with pytest.raises(
        InputError, match=r'd: a/x.png and b/x.png are links to the same images, which have one class; '
    ):
        listed(root)


def test_links_to_folders_are_followed_once(tmp_path):
    files(tmp_path / 'store', 'cat/1.png', 'dog/2.png')
    root = tmp_path / 'd'
    root.mkdir()
    (root / 'cat').symlink_to(tmp_path / 'store' / 'cat')
    (root / 'dog').symlink_to(tmp_path / 'store' / 'dog')
    assert listed(root).images.names() == ['cat/1.png', 'dog/2.png']
    (root / 'hound').symlink_to(tmp_path / 'store' / 'dog')
    with pytest.raises(InputError, match='dog and hound are links to the same images, which have one class'):
        listed(root)


def test_another_name_for_a_class_folder_is_no_class(tmp_path):
    root = files(tmp_path / 'd', 'cat/1.png', 'dog/2.png')
    (root / 'an_alias').symlink_to('cat')
    data = listed(root)
    assert data.class_names == ('cat', 'dog')
    assert data.images.remarks == twice_remark(root, '1: an_alias')


def test_links_that_lead_around_in_circles_end(tmp_path):
    root = files(tmp_path / 'd' / 'root', 'a/1.png', 'b/2.png')
    files(tmp_path / 'd', 'sibling/c/3.png')
    (root / 'a' / 'itself').symlink_to('itself')
    (root / 'a' / 'here').symlink_to('.')
    (root / 'a' / 'there').symlink_to('../b')
    (root / 'b' / 'back').symlink_to('../a')
    (root / 'b' / 'above').symlink_to('../..')
    images = listed(root).images
    assert images.names() == ['a/1.png', 'b/2.png']
    assert images.remarks[0].startswith(f'{root}: what is there more than once counts once (4: ')


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path):
    root = files(tmp_path / 'd', 'a/1.png')
    (root / 'a' / '2.png').symlink_to('nowhere.png')
    images = listed(root).images
    assert len(images) == 2
    assert len(images.fingerprint()) == 64
    [batch] = Loader(images, 2, 0).batches(PixelTransform((3, 16, 16), 1.0, 'center', 'bicubic', 'RGB'), [0])
    assert [(bad.name, 'No such file' in bad.reason) for bad in batch.bad] == [(str(root / 'a' / '2.png'), True)]


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='this system has no pipes in folders')
def test_a_pipe_that_is_called_like_an_image_is_not_waited_for(tmp_path):
    root = files(tmp_path / 'd', 'a/1.png')
    os.mkfifo(root / 'a' / '2.png')
    images = listed(root).images
    assert images.names() == ['a/1.png']
    assert images.remarks == (f'{root}: images that cannot be read as they are stored do not count (1: a/2.png)',)


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='who may read everything is not refused')
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    root = files(tmp_path / 'd', 'a/1.png', 'b/2.png')
    (root / 'b').chmod(0)
    try:
        with pytest.raises(InputError, match=r'b: cannot be read: Permission denied; allow it, or move it away'):
            listed(root)
    finally:
        (root / 'b').chmod(0o755)


def test_extensions_are_alike_in_upper_and_lower_case(tmp_path):
    root = files(tmp_path / 'd', 'a/1.PNG', 'a/2.png', 'b/3.WebP')
    assert listed(root).images.names() == ['a/1.PNG', 'a/2.png']
    for key in ('.webp;.png', 'WEBP; .Png', 'png;webp;'):
        assert len(listed(root, input_key=key).images) == 3


def test_a_tar_may_be_called_so_in_capitals(tmp_path):
    assert len(listed(write_tar(tmp_path / 'DIGITS.TAR')).images) == 60
    assert len(listed(tar_of(tmp_path / 'x.tar', 'a/1.PNG', 'b/2.Jpg')).images) == 2


def test_names_in_a_tar_may_begin_with_a_dot_or_a_slash(tmp_path):
    path = tar_of(tmp_path / 'x.tar', './a/1.png', '/b/2.png', 'c//3.png')
    assert listed(path).images.names() == ['a/1.png', 'b/2.png', 'c/3.png']
    assert listed(path).images.remarks == ()


def test_the_last_member_of_a_name_counts_as_where_a_tar_is_unpacked(tmp_path):
    path = tmp_path / 'x.tar'
    with tarfile.open(path, 'w') as tar:
        add_file(tar, 'a/1.png', b'an old one')
        add_file(tar, './a/1.png', PICTURE)
    images = listed(path).images
    assert images.open(0).source.read() == PICTURE
    assert images.remarks == twice_remark(path, '1: a/1.png')


def test_links_in_a_tar_count_as_they_do_in_a_folder(tmp_path):
    path = tmp_path / 'x.tar'
    with tarfile.open(path, 'w') as tar:
        add_file(tar, 'a/1.png', PICTURE)
        for name, kind, target in (('a/2.png', tarfile.LNKTYPE, 'a/1.png'), ('b/3.png', tarfile.SYMTYPE, '../a/1.png')):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    images = listed(path).images
    assert images.names() == ['a/1.png', 'a/2.png']
    assert images.open(1).source.read() == PICTURE
    assert images.remarks == (f'{path}: images that cannot be read as they are stored do not count (1: b/3.png)',)
    shutil.unpack_archive(path, tmp_path / 'unpacked', filter='fully_trusted')
    assert listed(tmp_path / 'unpacked').images.names() == ['a/1.png', 'a/2.png']


def test_tars_that_were_joined_are_noticed(tmp_path):
    one, two = tar_of(tmp_path / '1.tar', 'a/1.png'), tar_of(tmp_path / '2.tar', 'b/2.png')
    one.write_bytes(one.read_bytes() + two.read_bytes())
    images = listed(one).images
    assert images.names() == ['a/1.png']
    assert images.remarks == (f'{one}: it goes on after its end mark, as tars do that were joined: that is not read',)


def test_a_tar_that_ends_between_two_images_is_noticed(tmp_path):
    path = tar_of(tmp_path / 'x.tar', 'a/1.png', 'b/2.png', 'c/3.png')
    with tarfile.open(path) as tar:
        end = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:end])
    images = listed(path).images
    assert images.names() == ['a/1.png', 'b/2.png']
    assert images.remarks == (f'{path}: it has no end mark: files that were written after that are missing',)


def test_a_header_that_is_damaged_in_the_middle_of_a_tar_is_an_error(tmp_path):
    path = tar_of(tmp_path / 'x.tar', 'a/1.png', 'b/2.png', 'c/3.png')
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[1].offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = b'\xff' * 8
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf'x.tar: cannot be opened: no header at byte {offset}, after 1 files; pack'):
        listed(path)


def test_tars_are_read_at_every_depth(tmp_path):
    inner = tar_of(tmp_path / 'inner.tar', 'a/1.png')
    for name in ('middle.tar', 'outer.tar'):
        with tarfile.open(tmp_path / name, 'w') as tar:
            tar.add(inner, inner.name)
            add_file(tar, f'{name[:3]}/2.png', PICTURE)
        inner = tmp_path / name
    images = listed(inner).images
    assert images.names() == ['middle/inner/a/1.png', 'middle/mid/2.png', 'out/2.png']
    assert {images.open(position).source.read() for position in range(3)} == {PICTURE}


def test_names_are_equal_in_every_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, 'Käfer') for form in ('NFC', 'NFD'))
    root = files(tmp_path / 'd', f'{decomposed}/1.png', 'Mücke/2.png')
    path = tmp_path / 'classes.txt'
    path.write_text(f'Fliege\n{composed}\nMücke\n', encoding='utf-8')
    images = listed(root, class_map=path).images
    assert [images.open(position).label for position in range(2)] == [1, 2]
    data = listed(root)
    assert data.class_indices(3, 'm', {0: 'Mücke', 1: 'Fliege', 2: composed}) == [2, 0]


def test_folders_that_a_class_map_does_not_name_are_named(tmp_path):
    root = files(tmp_path / 'd', 'a/1.png', 'b/2.png', 'b/3.png')
    path = tmp_path / 'classes.txt'
    path.write_text('a\n')
    images = listed(root, class_map=path).images
    assert images.names() == ['a/1.png']
    assert images.remarks == (f'{root}: 2 images are left out: the class map does not name their folders (1: b)',)
    path.write_text('x\n')
    with pytest.raises(InputError, match=f'd: none of its folders is named in the class map {path}'):
        listed(root, class_map=path)


def test_hidden_files_and_copies_in_shards_do_not_count(tmp_path):
    root = write_shards(tmp_path / 'shards', 6)
    with tarfile.open(root / 'digits-01.tar', 'a') as tar:
        add_file(tar, '._0003.png', b'x')
        add_file(tar, '__MACOSX/0003.png', b'x')
        add_file(tar, '0003.png', PICTURE)
        add_file(tar, '0003.cls', b'\xef\xbb\xbf 3\r\n')
    spec = DataSpec(root=root, dataset='wds/digits', split='digits-{00..02}.tar')
    images = open_data(spec).images
    assert [images.open(position).label for position in range(len(images))] == [label for _, label in digits()[:6]]
    assert images.remarks == (
        f'{root}: hidden images, or folders with images, are ignored (2: ._0003.png, __MACOSX/0003.png)',
        f'{root}: what is there more than once counts once (1: digits-01.tar/0003.png)',
    )


def test_a_shard_that_is_named_or_linked_to_again_counts_once(tmp_path):
    root = write_shards(tmp_path / 'shards', 6)
    (root / 'digits-03.tar').symlink_to('digits-00.tar')
    images = open_data(DataSpec(root=root, dataset='wds/digits', split='digits-{00..03}.tar')).images
    assert len(images) == 6
    assert images.remarks == twice_remark(root, '1: digits-03.tar')


def test_a_label_in_a_shard_that_is_no_number_is_named(tmp_path):
    with tarfile.open(tmp_path / 'a-00.tar', 'w') as tar:
        add_file(tar, 'x.png', PICTURE)
        add_file(tar, 'x.cls', b'cat')
    with pytest.raises(InputError, match=r'a-00.tar: sample x: its label cannot be read: invalid literal .*cat'):
        open_data(DataSpec(root=tmp_path, dataset='wds/a', split='a-00.tar'))


def test_torchvisions_folder_names_an_empty_class_and_sorts_by_letters(tmp_path):
    root = write_named(tmp_path / 'd', lambda index, label: f'{label + 1}/deep/{index:04d}.png')
    data = listed(root, dataset='torch/image_folder')
    assert data.class_names == ('1', '10', '2', '3', '4', '5', '6', '7', '8', '9')
    shutil.rmtree(root / '10')
    (root / '10').mkdir()
    with pytest.raises(InputError, match=r'folders without an image that counts \(1: 10\)'):
        listed(root, dataset='torch/image_folder').class_indices(10)
