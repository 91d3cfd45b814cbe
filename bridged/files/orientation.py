"""The one thing in a picture's EXIF that changes how it looks: its orientation (tag 274, EXIF 2.3 section 4.6.4)."""

from __future__ import annotations

import struct

TAG, SHORT = 0x0112, 3
UPRIGHT = 1
EXIF_HEADER = b"Exif\0\0"
"""what comes before the TIFF structure in a JPEG's APP1, and in some WebP files"""


def orientation_of(exif: bytes) -> int:
    """1 to 8; 1, upright, also where nothing is said or nothing can be understood."""
    tiff = exif.removeprefix(EXIF_HEADER)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return UPRIGHT
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return UPRIGHT
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == TAG:
            return value if kind == SHORT and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def exif_of(orientation: int) -> bytes:
    """A TIFF structure that says the orientation and nothing else."""
    return struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, TAG, SHORT, 1, orientation, 0, 0)
