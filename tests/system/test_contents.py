"""What tells a file from another one under the same path."""

import hashlib
import os

import pytest

from statprune.system import contents
from statprune.system.contents import files_at, identity_of, is_same, key_of
from statprune.system.files import sha256_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((16).to_bytes(8, "little") + bytes(range(256)) * 16)
    return path


@pytest.fixture
def sampled(file, monkeypatch):
    """The same file where it counts as a large one, of which every tenth byte is a sample's."""
    monkeypatch.setattr(contents, "LARGEST_WHOLE", 100)
    monkeypatch.setattr(contents, "STRIDE", 1000)
    monkeypatch.setattr(contents, "SAMPLE", 100)
    return file


def written_later(path, content=None):
    """The file with other content, perhaps, and another time."""
    path.write_bytes(path.read_bytes() if content is None else content)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))


def test_a_small_file_is_hashed_whole(file):
    identity = identity_of(file, in_full=False)
    assert identity.is_whole and identity.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (identity.size, identity.mtime_ns) == (file.stat().st_size, file.stat().st_mtime_ns)


def test_a_file_that_is_written_again_with_the_same_bytes_is_the_same(file):
    before = identity_of(file, in_full=False)
    written_later(file)
    assert is_same(file, before, verify=False)


def test_a_byte_that_changes_in_place_is_seen(file):
    before, content = identity_of(file, in_full=False), bytearray(file.read_bytes())
    content[-1] ^= 1
    written_later(file, bytes(content))
    assert not is_same(file, before, verify=False)


def test_a_change_that_keeps_size_and_time_is_seen_by_verifying(file):
    before, content = identity_of(file, in_full=True), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(before.mtime_ns, before.mtime_ns))
    contents._HASHES.clear()  # as another process would find it
    assert is_same(file, before, verify=False) and not is_same(file, before, verify=True)


@pytest.mark.parametrize(("place", "seen"), [(9, True), (2050, True), (4000, True), (-1, True), (1500, False)])
def test_of_a_large_file_header_samples_and_end_are_hashed(place, seen, sampled):
    before, content = identity_of(sampled, in_full=False), bytearray(sampled.read_bytes())
    assert not before.is_whole
    content[place] ^= 1
    written_later(sampled, bytes(content))
    assert is_same(sampled, before, verify=False) is not seen


def test_of_a_large_file_all_bytes_are_hashed_where_that_is_asked_for(sampled):
    before, content = identity_of(sampled, in_full=True), bytearray(sampled.read_bytes())
    content[1500] ^= 1
    written_later(sampled, bytes(content))
    assert before.is_whole and not is_same(sampled, before, verify=False)


def test_the_hubs_cache_has_the_hash_in_the_name(sampled, tmp_path):
    blob = tmp_path / "blobs" / ("a" * 64)
    blob.parent.mkdir()
    sampled.rename(blob)
    sampled.symlink_to(blob)
    identity = identity_of(sampled, in_full=False)
    assert identity.is_whole and identity.sha256 == "a" * 64


def test_a_hash_in_a_name_is_not_believed_where_all_bytes_are_asked_for(file, tmp_path):
    blob = tmp_path / "blobs" / sha256_of(file)
    blob.parent.mkdir()
    file.rename(blob)
    before = identity_of(blob, in_full=False)
    assert is_same(blob, before, verify=True)
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(blob, ns=(before.mtime_ns, before.mtime_ns))
    contents._HASHES.clear()  # a process hashes once while size and time stay
    assert is_same(blob, before, verify=False) and not is_same(blob, before, verify=True)
    assert identity_of(blob, in_full=True).sha256 != before.sha256


def test_a_file_is_hashed_once(file, monkeypatch):
    identity_of(file, in_full=False)
    monkeypatch.setattr(contents, "sha256_of", lambda path: pytest.fail("hashed again"))
    identity_of(file, in_full=False)


@pytest.mark.parametrize("ending", ["", "/*.safetensors", "/m*"])
def test_a_folder_and_a_pattern_are_the_files_they_name(ending, file, tmp_path):
    assert list(files_at(f"{tmp_path}{ending}").values()) == [file]


def test_the_time_tells_sampled_files_apart_for_a_cache(sampled):
    before = {"a": identity_of(sampled, in_full=False)}, {"a": identity_of(sampled, in_full=True)}
    written_later(sampled)
    after = {"a": identity_of(sampled, in_full=False)}, {"a": identity_of(sampled, in_full=True)}
    assert key_of(before[0]) != key_of(after[0]) and key_of(before[1]) == key_of(after[1])
