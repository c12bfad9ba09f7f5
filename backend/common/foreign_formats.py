"""The kind of a file that is not an accepted image, by its first bytes, so that a refusal can name it."""

import re

_HEAD_BYTES = 1024
_STARTS = {
    b"GIF8": "a GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"II+\0": "a BigTIFF",
    b"MM\0+": "a BigTIFF",
    b"8BPS": "a Photoshop file",
    b"\0\0\1\0": "an icon",
    b"%PDF-": "a PDF",
    b"%!PS": "a PostScript file",
    b"PK\3\4": "a ZIP archive",
    b"PK\5\6": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x1a\x45\xdf\xa3": "a video (Matroska or WebM)",
    b"\0\0\1\xba": "a video (MPEG)",
    b"\0\0\1\xb3": "a video (MPEG)",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance HDR image",
    b"\x93NUMPY": "a NumPy array",
    b"MZ": "a Windows program",
    b"\x7fELF": "a Linux program",
    b"version https://git-lfs": "a Git LFS pointer, which stands for the file itself (fetch it with `git lfs pull`)",
}
_RIFF = {b"AVI ": "a video (AVI)", b"WAVE": "a sound (WAV)"}
# Of ISO media files: the brand, as a pattern, after "ftyp".
_BRANDS = (
    (re.compile(rb"avi[fs]"), "an AVIF"),
    (re.compile(rb"he[iv][cfmsx]|mif1|msf1"), "a HEIC"),
    (re.compile(rb"cr[x ]"), "a raw image of a camera"),
)
_PORTABLE = re.compile(rb"P[1-7fF][\s#]")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
_SHOWN_BYTES = 8


class UnsupportedKind(ValueError):
    """An image of a kind that is not accepted, though others of its format are; the message names it: "a TIFF of …"."""


def format_name(content: bytes) -> str:
    r"""The kind of a file, with its article, as far as its first bytes show it.

    >>> format_name(b"GIF89a")
    'a GIF'
    >>> format_name(b"\0\0\0\0\1")
    'a file of unknown kind (it begins with 00 00 00 00 01)'
    """
    head = content[:_HEAD_BYTES]
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], "a RIFF file")
    if head[4:8] == b"ftyp":
        return next((name for brand, name in _BRANDS if brand.match(head, 8)), "a video (MP4 or MOV)")
    if head[128:132] == b"DICM":
        return "a DICOM image"
    if _PORTABLE.match(head):
        return "a portable pixmap (PPM, PGM or PBM)"
    return _text_name(head) or f"a file of unknown kind (it begins with {head[:_SHOWN_BYTES].hex(' ')})"


def _text_name(head: bytes) -> str | None:
    """The kind of a text; None if it is not a text."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not _TEXT.fullmatch(text):
        return None
    if b"<svg" in text:
        return "an SVG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "a web page"
    if text.startswith(b"<"):
        return "an XML file"
    if text.startswith((b"{", b"[")):
        return "a JSON text"
    if text.startswith(b"data:"):
        return "a data URL (send the bytes that it encodes)"
    return "a text" if all(byte < 0x80 for byte in text) else None
