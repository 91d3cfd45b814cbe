"""File names that callers and backends give: what is acceptable, and what is shown in their place."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

from bridged.errors import FileRefused

MAX_NAME_BYTES = 255
"""the limit of Linux file systems (NAME_MAX); longer names cannot be saved by whoever downloads them"""

_RESERVED = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³]|conin\$|conout\$|clock\$) *(?:\.|$)", re.IGNORECASE)
"""names of devices, which Windows opens in place of a file, also with an extension (Microsoft, "Naming Files")"""

_FORBIDDEN = frozenset("<>:|")
"""`:` opens an alternate data stream on Windows, the others belong to markup and shells. Windows has no `"`, `?` and
`*` in names either, but people on other systems do, and no name of theirs ever becomes a path here."""

EXECUTABLE = frozenset(
    (
        *("php", "php3", "php4", "php5", "php6", "php7", "php8", "phps", "pht", "phtm", "phtml", "phar", "hphp"),
        *("asp", "aspx", "asa", "asax", "ascx", "ashx", "asmx", "jsp", "jspx", "jspf", "jsw", "jsv", "cfm", "cfc"),
        *("cgi", "fcgi", "pl", "py", "pyc", "pyw", "rb", "sh", "bash", "zsh", "csh", "ksh", "lua", "htaccess"),
        *("exe", "scr", "bat", "cmd", "msi", "msp", "pif", "cpl", "dll", "lnk", "scf", "reg", "hta", "chm", "msc"),
        *("vb", "vbs", "vbe", "js", "jse", "mjs", "wsf", "wsh", "wsc", "ps1", "psm1", "jar", "jnlp", "apk", "dmg"),
        *("html", "htm", "xhtml", "xht", "shtml", "shtm", "mht", "mhtml", "svg", "svgz", "xsl", "xslt", "swf"),
    )
)
"""extensions that servers and desktops run, or browsers give a page's rights. Words that people put into names are
not here, and neither is `com`: pictures are named after sites (`example.com.png`)"""

_VISIBLE_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""format characters that are seen: Arabic, Syriac and Kaithi signs of numbers (Prepended_Concatenation_Mark)"""

_JOINERS = frozenset("\u200c\u200d\u180e")
_JOINED = frozenset({"Lo", "Lm", "Mn", "Mc", "Me", "So", "Sk"})
"""what a joiner may follow: letters of scripts without capitals (Persian, Hindi, Sinhala, …), marks, emoji. Behind a
Latin letter it could only make two names that look the same."""

_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,16}\U000e007f")
"""flags of regions (England, Scotland): a black flag and tag characters, which are refused anywhere else"""

_TRAVERSAL = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)|[\x00-\x1f\x7f]")

_ENDS_OF_PART = re.compile(r"[%;\s\0]")


def bare_name(name: str) -> str:
    """The name in NFC. Raises FileRefused: empty, a path, hidden, reserved on some system, misleading, or too long.

    A leading `-` is kept: names go to no command line of ours, and people have files such as `-1.png`.
    """
    name = unicodedata.normalize("NFC", name)
    if not name or name in (".", ".."):
        raise FileRefused("filename is required: send a bare file name such as photo.png")
    if "/" in name or "\\" in name or name != name.strip():
        raise FileRefused(f"filename {_shown(name)} must be a bare name, with no folders and no outer spaces")
    if not (name.isascii() and name.isprintable()):
        _check_characters(name)
    if len(name.encode()) > MAX_NAME_BYTES:
        raise FileRefused(f"filename is longer than {MAX_NAME_BYTES} bytes")
    if not _FORBIDDEN.isdisjoint(name):
        raise FileRefused(f"filename {_shown(name)} must have none of {' '.join(sorted(_FORBIDDEN))}")
    if name[0] == "." or name[-1] == ".":
        raise FileRefused(f"filename {_shown(name)} must neither begin nor end with a dot")
    if _RESERVED.match(name):
        raise FileRefused(f"filename {_shown(name)} is the name of a device on Windows")
    if "%" in name and _TRAVERSAL.search(_decoded(name)):
        raise FileRefused(f"filename {_shown(name)} hides a path behind percent signs")
    if name.count(".") > 1:
        for part in name.split(".")[1:-1]:
            if _ENDS_OF_PART.split(part, maxsplit=1)[0].lower() in EXECUTABLE:
                raise FileRefused(f"filename {_shown(name)} hides the extension .{part.lower()}; take it out")
    return name


def extension_of(name: str) -> str:
    """The last extension with its dot, lower case; "" where there is none."""
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem else ""


def _decoded(name: str) -> str:
    """What becomes of a name that others decode, once or more."""
    for _ in range(3):
        name = unquote(name)
    return name


def _check_characters(name: str) -> None:
    before = ""
    for character in _FLAG.sub("\U0001f3f4", name):
        category = unicodedata.category(character)
        if category == "Cf":
            acceptable = character in _VISIBLE_FORMATS or (
                character in _JOINERS and bool(before) and unicodedata.category(before) in _JOINED
            )
        elif category == "Cn":  # letters and emoji newer than our tables are no fault of the name
            acceptable = ord(character) & 0xFFFE != 0xFFFE and not 0xFDD0 <= ord(character) <= 0xFDEF
        else:
            # Private use characters look like anything, and Windows and macOS map forbidden ones to them.
            acceptable = category not in ("Cc", "Cs", "Co", "Zl", "Zp") and character not in "\u3164\uffa0"
        if not acceptable:
            raise FileRefused("filename must have no control or invisible characters")
        before = character


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:79]}…")
