"""GIF: every block up to the trailer. Facts: GIF89a specification (CompuServe, 1990), Netscape's loop extension."""

from __future__ import annotations

from bridged.files.formats.active import check_block, check_text, is_json_object
from bridged.files.formats.limits import Limits, Picture
from bridged.files.formats.source import BLOCK, Refusal, Source
from bridged.files.formats.trailing import check_leftovers

MAX_BLOCKS, MAX_SUBBLOCKS, MAX_EXTENSIONS = 200_000, 20_000_000, 8 * 1024 * 1024
"""blocks; data sub-blocks of all frames (of at most 255 bytes each); bytes of all extensions"""

SLOW = 20
"""sub-blocks of a frame that are passed over in the time that one of an extension takes"""

_COMMENT, _PLAIN_TEXT, _APPLICATION, _CONTROL = 0xFE, 0x01, 0xFF, 0xF9


def check_gif(source: Source, limits: Limits) -> Picture:
    """Raises Refusal: broken, too large, active content, or something behind it."""
    head = source.exact(0, 13)
    if head[:6] not in (b"GIF87a", b"GIF89a"):
        raise Refusal("it is no GIF")
    walk = _Walk(source, limits, head)
    check_leftovers(source, walk.run())
    return walk.picture


class _Walk:
    def __init__(self, source: Source, limits: Limits, head: bytes) -> None:
        self._source = source
        self._limits = limits
        self._subblocks = self._extra = 0
        self._script = head[6:8] == b"/*" or (head[6:7] == b"=" and head[7] >= 0x20)
        width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
        self._at = 13
        self._table(head[10])
        self.picture = Picture(width, height, 0)

    def run(self) -> int:
        """Where the trailer ends."""
        for _ in range(MAX_BLOCKS):
            kind = (self._source.read(self._at, 1) or b";")[0]  # old programs forget the trailer
            self._at += 1
            if kind == 0x3B:
                if not self.picture.frames:
                    raise Refusal("it has no picture")
                return min(self._at, self._source.size)
            if kind == 0x2C:
                self._frame()
            elif kind == 0x21:
                self._extension()
            elif kind:  # an empty sub-block more than needed is common
                raise Refusal("its structure is broken")
        raise Refusal(f"it has more than {MAX_BLOCKS} blocks")

    def _frame(self) -> None:
        head = self._source.exact(self._at, 9)
        left, top, width, height = (int.from_bytes(head[at : at + 2], "little") for at in (0, 2, 4, 6))
        wide, high = max(self.picture.width, left + width), max(self.picture.height, top + height)
        self.picture = Picture(wide, high, self.picture.frames + 1)
        if not width or not height:
            raise Refusal("a frame has no size")
        self._limits.size(wide, high)
        self._limits.frames_of(*self.picture)
        self._at += 9
        self._table(head[8])
        code_size = self._source.exact(self._at, 1)[0]
        if not 1 <= code_size <= 11:
            raise Refusal("its pixel data are broken")
        self._at += 1
        self._skip()

    def _extension(self) -> None:
        label = self._source.exact(self._at, 1)[0]
        self._at += 1
        if label == _CONTROL:
            control = self._source.read(self._at, 6)
            if control[:1] == b"\4" and control[5:] == b"\0":
                self._at += 6
                return
        start = self._at
        data = self._take()
        raw = self._source.exact(start, self._at - start)
        where = {_COMMENT: "its comment", _PLAIN_TEXT: "its text", _APPLICATION: "its application data"}.get(
            label, "its extension"
        )
        if self._script and label in (_COMMENT, _PLAIN_TEXT, _APPLICATION) and (b"*/" in data or b";" in data):
            raise Refusal(f"{where} goes on with a script that the file's beginning opens")
        if label in (_COMMENT, _PLAIN_TEXT):
            check_text(data, where)
            if is_json_object(data):
                return
        check_block(data, where)
        check_block(raw, where)  # where the lengths between the pieces are letters, too

    def _table(self, flags: int) -> None:
        """Passes over a colour table."""
        if flags & 0x80:
            size = 3 << (flags & 7) + 1
            check_block(self._source.exact(self._at, size), "its palette")
            self._at += size

    def _skip(self) -> None:
        """Passes over data sub-blocks, up to the empty one."""
        at = self._at
        while block := self._source.read(at, BLOCK):
            here, last = 0, len(block)
            while here < last:
                size = block[here]
                here += 1 + size
                self._subblocks += 1
                if not size:
                    self._at = at + here
                    return
            at += here
            if self._subblocks > MAX_SUBBLOCKS:
                raise Refusal("it has too many data blocks")
        raise Refusal("the file is cut off")

    def _take(self) -> bytes:
        """The data sub-blocks of an extension, joined."""
        pieces = []
        while size := self._source.exact(self._at, 1)[0]:
            pieces.append(self._source.exact(self._at + 1, size))
            self._at += 1 + size
            self._extra += size
            self._subblocks += SLOW
            if self._extra > MAX_EXTENSIONS or self._subblocks > MAX_SUBBLOCKS:
                raise Refusal("its extensions are too large")
        self._at += 1
        return b"".join(pieces)
