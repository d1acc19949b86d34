"""Go's file modes."""

import stat

import pytest

from mobysession.filesync import modes


@pytest.mark.parametrize(
    ("posix", "go"),
    [
        (stat.S_IFDIR | 0o755, 0x800001ED),
        (stat.S_IFREG | 0o644, 0x1A4),
        (stat.S_IFLNK | 0o777, 0x080001FF),
        (stat.S_IFCHR | 0o620, 0x04200190),
        (stat.S_IFBLK | 0o660, 0x040001B0),
        (stat.S_IFREG | 0o4755, 0x008001ED),
        (stat.S_IFREG | 0o2755, 0x004001ED),
        (stat.S_IFDIR | 0o1777, 0x801001FF),
        (stat.S_IFIFO | 0o600, 0x02000180),
        (stat.S_IFSOCK | 0o700, 0x010001C0),
        (0o070000 | 0o644, 0x000801A4),
    ],
)
def test_a_posix_mode_becomes_the_go_mode(posix: int, go: int) -> None:
    """Types and special bits move to Go's places, permissions stay."""
    assert modes.from_posix(posix) == go


def test_a_requestable_entry_has_no_type_bit() -> None:
    """The mask of the request test is the one of Go's ModeType."""
    assert modes.TYPE == 0x8F280000


@pytest.mark.parametrize("bits", [0o644, 0o4755, 0o2755, 0o1777, 0o7777, 0])
def test_permissions_come_back(bits: int) -> None:
    """What chmod takes survives the way to Go and back."""
    assert modes.permissions_to_posix(modes.from_posix(stat.S_IFREG | bits)) == bits
