"""Hostile image files, made from a fixed seed: bombs, strips, cuts, flips, polyglots, and odd kinds that are fine."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.tiff_files import pack, tiff

SEED = 20261122
_WIDTH, _HEIGHT = 96, 64
_BOMB_SIDES = (9_000, 65_500)
_STRIP = 60_000


def corpus() -> dict[str, bytes]:
    """Every file that is written on purpose, by what it is."""
    return {
        **_whole(),
        **_headers_that_lie(),
        **_strips(),
        **_loaded_with_metadata(),
        **endless_headers(1 << 20),
        **_hostile_tiffs(),
        **_no_images(),
        **_cut(),
    }


def mutations(count: int, seed: int = SEED) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, each with what was done to it; the same for the same seed.

    Args:
        count: how many.
        seed: another one gives other files.
    """
    chance = random.Random(seed)
    originals = {**_whole(), **_headers_that_lie(), **_loaded_with_metadata(), **_hostile_tiffs(), **_no_images()}
    names = sorted(originals)
    changes = (_flip_bits, _overwrite, _cut_out, _repeat, _splice, _extreme_number, _cut_off)
    for _ in range(count):
        name = chance.choice(names)
        content = bytearray(originals[name])
        done = []
        for change in chance.choices(changes, k=chance.randint(1, 3)):
            if content:
                change(content, chance, originals[chance.choice(names)])
                done.append(change.__name__.strip("_"))
        yield f"{name}: {', '.join(done)}", bytes(content)


def _flip_bits(content: bytearray, chance: random.Random, _other: bytes) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _overwrite(content: bytearray, chance: random.Random, _other: bytes) -> None:
    start = _place(content, chance)
    content[start : start + 8] = chance.randbytes(chance.randint(1, 8))


def _cut_out(content: bytearray, chance: random.Random, _other: bytes) -> None:
    start = _place(content, chance)
    del content[start : start + chance.choice((1, 4, 64, 1024))]


def _repeat(content: bytearray, chance: random.Random, _other: bytes) -> None:
    start = _place(content, chance)
    content[start:start] = content[start : start + chance.choice((1, 4, 64, 1024))] * chance.choice((1, 2, 50))


def _splice(content: bytearray, chance: random.Random, other: bytes) -> None:
    content[_place(content, chance) :] = other[chance.randrange(len(other) or 1) :]


def _extreme_number(content: bytearray, chance: random.Random, _other: bytes) -> None:
    start = _place(content, chance)
    number = chance.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000, 65_000))
    content[start : start + 4] = struct.pack(chance.choice((">I", "<I")), number)


def _cut_off(content: bytearray, chance: random.Random, _other: bytes) -> None:
    del content[_place(content, chance) :]


def _place(content: bytearray, chance: random.Random) -> int:
    """Anywhere, and as often in the first hundred bytes, where headers are."""
    return chance.randrange(len(content) if chance.random() < 0.5 else min(len(content), 100))


def pixels(width: int = _WIDTH, height: int = _HEIGHT, channels: int = 3) -> npt.NDArray[np.uint8]:
    """A picture that is neither flat nor noise: uint8 [H, W, C]."""
    y, x = np.mgrid[:height, :width]
    planes = [(x * (3 + plane) + y * (2 + plane)) % 256 for plane in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png(width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """A PNG written chunk by chunk, whatever its header claims.

    Args:
        width, height: what the header says.
        rows: what is in it, unpacked.
        depth, colour: bits and colour type of the header.
        extra: chunks between the header and the rows.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), extra, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_chunk(name: bytes, content: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bmp(width: int, height: int, rows: bytes, *, compression: int = 0, bits: int = 24) -> bytes:
    """A BMP whose header says what it is told."""
    palette = bytes(1024) if bits == 8 else b""
    start = 54 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + palette + rows


def jpeg_of_many_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG whose scans change nothing: each still passes over every block of the image."""
    blocks = -(-width // 8) * -(-height // 8)

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    def huffman(kind: int, symbol: int) -> bytes:
        return segment(0xC4, bytes([kind, 1, *[0] * 15, symbol]))  # the one symbol is the bit 0

    frame = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, frame)
    first = huffman(0x00, 0) + segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    runs, bits = divmod(blocks, 32767), ""
    bits = ("0" + "1" * 14) * runs[0]  # a run of 2¹⁴ + (2¹⁴ - 1) blocks that end here
    if runs[1]:
        bits += ("0" + "0" * 14) * (runs[1] // 16384 + 1)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = segment(0xDA, b"\1\1\0\1\x3f\0") + data
    return head + first + huffman(0x10, 0xE0) + scan * scans + b"\xff\xd9"


def _whole() -> dict[str, bytes]:
    """What cameras and programs write; most of it is accepted."""
    rgb = Image.fromarray(pixels())
    rgba = Image.fromarray(pixels(channels=4), "RGBA")
    grey = rgb.convert("L")
    sixteen = Image.fromarray(pixels(channels=1)[..., 0].astype(np.uint16) * 257)
    palette = rgb.quantize(64)
    frames = [rgb.rotate(angle) for angle in (90, 180)]
    return {
        "PNG": saved(rgb, "PNG"),
        "PNG with alpha": saved(rgba, "PNG"),
        "PNG of 16 bits": saved(sixteen, "PNG"),
        "PNG of 1 bit": saved(grey.convert("1"), "PNG"),
        "PNG, palette with transparency": saved(palette, "PNG", transparency=bytes(range(64))),
        "APNG": saved(rgb, "PNG", save_all=True, append_images=frames),
        "JPEG": saved(rgb, "JPEG"),
        "JPEG, progressive": saved(rgb, "JPEG", progressive=True),
        "JPEG, CMYK": saved(rgb.convert("CMYK"), "JPEG"),
        "JPEG, grey": saved(grey, "JPEG"),
        "JPEG of a hundred scans": jpeg_of_many_scans(_WIDTH, _HEIGHT, 99),
        "BMP": saved(rgb, "BMP"),
        "BMP, palette": saved(palette, "BMP"),
        "BMP, top row first": bmp(_WIDTH, -_HEIGHT, pixels().tobytes()),
        "WebP": saved(rgb, "WEBP"),
        "WebP, lossless, alpha": saved(rgba, "WEBP", lossless=True),
        "WebP, animated": saved(rgb, "WEBP", save_all=True, append_images=frames),
        "one pixel": saved(Image.fromarray(pixels(1, 1)), "PNG"),
        "GIF": saved(palette, "GIF"),
        "TIFF": saved(rgb, "TIFF"),
        "TIFF, LZW": saved(rgb, "TIFF", compression="tiff_lzw"),
        "TIFF, deflate": saved(rgba, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, PackBits": saved(grey, "TIFF", compression="packbits"),
        "TIFF of 16 bits": tiff(pixels(channels=1).astype(np.uint16) * 257, order=">"),
        "TIFF in tiles": tiff(pixels(), codec="deflate", tile=(32, 16), predictor=2),
    }


def _headers_that_lie() -> dict[str, bytes]:
    """Decompression bombs: small files whose header claims a large image, and some that keep the promise."""
    rgb = Image.fromarray(pixels())
    jpeg, webp = bytearray(saved(rgb, "JPEG")), bytearray(saved(rgb, "WEBP", lossless=True))
    animated = bytearray(saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]))
    files = {}
    for side in _BOMB_SIDES:
        frame = jpeg.index(b"\xff\xc0")
        jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
        files[f"JPEG that claims {side}²"] = bytes(jpeg)
        files[f"PNG that claims {side}²"] = png(side, side, bytes(99))
        files[f"PNG of 16 bits that claims {side}²"] = png(side, side, bytes(99), depth=16, colour=6)
        files[f"BMP that claims {side}²"] = bmp(side, side, bytes(99))
        files[f"BMP, packed, that claims {side}²"] = bmp(side, side, b"\0\1", compression=1, bits=8)
    start = webp.index(b"VP8L") + 9
    webp[start : start + 4] = struct.pack("<I", 0x0FFFFFFF)
    files["WebP that claims 16384²"] = bytes(webp)
    start = animated.index(b"VP8X") + 12
    animated[start : start + 6] = b"\xff\xff\0\xff\xff\0"
    files["WebP, animated, that claims 65536²"] = bytes(animated)
    files["TIFF that claims 65500"] = tiff(pixels(), extra={256: 65_500})
    second = b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", 9_000, 9_000) + b"\1\1\x11\0"
    good = saved(rgb, "JPEG")
    files["JPEG of two frames"] = good[:2] + second.replace(struct.pack(">H", 9_000), b"\0\x09") + second + good[2:]
    files["JPEG whose frame is in its EXIF"] = good[:2] + b"\xff\xe1\0\x0f" + second + good[2:]
    files["PNG of two headers"] = png(
        _WIDTH, _HEIGHT, bytes(99), extra=png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0))
    )
    files["PNG that claims 0 × 9"] = png(0, 9, b"")
    files["PNG that claims 2³¹-1"] = png(2**31 - 1, 2**31 - 1, b"")
    files["BMP that claims -2³¹"] = bmp(-(2**31), -(2**31), bytes(99))
    files["PNG whose rows go on and on"] = png(_WIDTH, _HEIGHT, bytes(50_000_000))
    files["JPEG of 5000 scans"] = jpeg_of_many_scans(4096, 4096, 5_000)
    files["APNG whose frame is larger than the image"] = png(
        _WIDTH,
        _HEIGHT,
        b"".join(b"\0" + row.tobytes() for row in pixels()),
        extra=png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
        + png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1, 1, 1, 0, 0)),
    )
    return files


def _strips() -> dict[str, bytes]:
    """Images of one row or column."""
    row, column = pixels(_STRIP, 1), pixels(1, _STRIP)
    return {
        f"PNG of {_STRIP} × 1": saved(Image.fromarray(row), "PNG"),
        f"PNG of 1 × {_STRIP}": saved(Image.fromarray(column), "PNG"),
        f"JPEG of {_STRIP} × 1": saved(Image.fromarray(row), "JPEG"),
        f"JPEG of 1 × {_STRIP}": saved(Image.fromarray(column), "JPEG"),
        f"BMP of 1 × {_STRIP}": saved(Image.fromarray(column), "BMP"),
        "WebP of 1 × 16383": saved(Image.fromarray(pixels(1, 16_383)), "WEBP"),
        "BMP of 2000000 × 1": saved(Image.fromarray(pixels(2_000_000, 1)), "BMP"),
    }


def _loaded_with_metadata() -> dict[str, bytes]:
    """Bombs and garbage beside the pixels: EXIF, ICC, texts."""
    rgb = Image.fromarray(pixels())
    rows = b"".join(b"\0" + row.tobytes() for row in pixels())
    bomb = zlib.compress(bytes(100_000_000))
    entries = b"".join(struct.pack("<HHII", 0x8769 + place, 4, 1, 8) for place in range(4000))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 4000) + entries + struct.pack("<I", 8)  # and on to itself
    garbage = random.Random(SEED).randbytes(50_000)
    return {
        "PNG with a packed text of 100 MB": png(_WIDTH, _HEIGHT, rows, extra=png_chunk(b"zTXt", b"a\0\0" + bomb)),
        "PNG with a packed profile of 100 MB": png(_WIDTH, _HEIGHT, rows, extra=png_chunk(b"iCCP", b"a\0\0" + bomb)),
        "PNG with a packed text in UTF-8": png(
            _WIDTH, _HEIGHT, rows, extra=png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)
        ),
        "PNG with EXIF that turns in circles": png(_WIDTH, _HEIGHT, rows, extra=png_chunk(b"eXIf", exif[6:])),
        "PNG with 5000 chunks of text": png(_WIDTH, _HEIGHT, rows, extra=png_chunk(b"tEXt", b"a\0b") * 5_000),
        "JPEG with EXIF that turns in circles": saved(rgb, "JPEG", exif=exif[:60_000]),
        "JPEG with a profile of garbage": saved(rgb, "JPEG", icc_profile=garbage),
        "PNG with a profile of garbage": saved(rgb, "PNG", icc_profile=garbage),
        "WebP with a profile of garbage": saved(rgb, "WEBP", icc_profile=garbage, exif=garbage),
    }


def endless_headers(n_bytes: int) -> dict[str, bytes]:
    """Images whose header holds one small thing over and over, each a file of some `n_bytes`."""
    rgb = Image.fromarray(pixels())
    jpeg, webp = saved(rgb, "JPEG"), saved(rgb, "WEBP")
    scan = jpeg.index(b"\xff\xda")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels())
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))
    canvas = b"VP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<HBHB", _WIDTH - 1, 0, _HEIGHT - 1, 0)

    def filled(piece: bytes) -> bytes:
        return piece * (n_bytes // len(piece))

    def riff(chunks: bytes) -> bytes:
        return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks

    return {
        "JPEG of EXIF in pieces": jpeg[:2] + filled(b"\xff\xe1\0\x58Exif\0\0" + bytes(80)) + jpeg[2:],
        "JPEG of fill bytes": jpeg[:2] + filled(b"\xff") + jpeg[2:],
        "JPEG of stuffed zeros": jpeg[:2] + filled(b"\xff\0") + jpeg[2:],
        "JPEG of restart markers": jpeg[:2] + filled(b"\xff\xd0") + jpeg[2:],
        "JPEG of empty segments": jpeg[:2] + filled(b"\xff\xe5\0\2") + jpeg[2:],
        "JPEG of empty segments before its scan": jpeg[:scan] + filled(b"\xff\xe2\0\2") + jpeg[scan:],
        "JPEG of empty segments before its end": jpeg[:-2] + filled(b"\xff\xe1\0\2") + jpeg[-2:],
        "PNG of empty chunks": png(_WIDTH, _HEIGHT, rows, extra=filled(png_chunk(b"teSt", b""))),
        "PNG of packed texts": png(_WIDTH, _HEIGHT, rows, extra=filled(text)),
        "WebP of empty chunks": riff(canvas + filled(b"test\0\0\0\0") + webp[12:]),
    }


def _hostile_tiffs() -> dict[str, bytes]:
    """Directories that lead in circles, count too much or lie on one another, and strips that are bombs."""
    image, small = pixels(), pixels(64, 64, 1)
    whole = tiff(image)
    start = struct.unpack_from("<I", whole, 4)[0]
    n_tags = struct.unpack_from("<H", whole, start)[0]
    end = start + 2 + 12 * n_tags
    many = struct.pack("<HHII", 305, 2, 2**31 - 1, 8) * 60_000
    lies: dict[str, dict[int, int]] = {
        "of one row of 2³²-1 pixels": {256: 2**32 - 1, 257: 1},
        "of no pixel": {256: 0},
        "of strips of no rows": {278: 0},
        "of 65535 channels": {277: 65_535},
        "whose bits are nowhere": {258: 2**32 - 1},
        "whose strips are its header": {273: 0},
        "whose strips end beyond the file": {279: 2**32 - 1},
        "whose software is 4 GB": {305: 2**32 - 1},
        "that refers to EXIF in itself": {34665: start},
        "that has pages below pages": {330: start},
        "of tiles and strips": {322: 16, 323: 16},
        "that is a thumbnail": {254: 1},
        "turned": {274: 6},
        "of JPEG in strips": {259: 7},
        "of fax in strips": {259: 4},
        "of floating point numbers": {258: 32, 339: 3},
    }
    zeros = np.zeros((1, 1 << 24, 1), np.uint8)
    strips = {
        "deflate that is a bomb": ("deflate", pack(zeros, "deflate")),
        "PackBits that is a bomb": ("PackBits", pack(zeros, "PackBits")),
        "LZW's clear codes": ("LZW", b"\x80\x40\x20\x10\x08\x04\x02\x01\x00" * 9999),
        "empty blocks of deflate": ("deflate", b"\x78\x9c" + b"\0\0\0\xff\xff" * 200_000),
        "PackBits that say nothing": ("PackBits", b"\x80" * 1_000_000),
    }
    return {
        "TIFF whose pages are a circle": whole[:end] + struct.pack("<I", start) + whole[end + 4 :],
        "TIFF of 60000 tags": b"II*\0" + struct.pack("<IH", 8, 60_000) + many + bytes(4),
        "TIFF of its signature alone": b"II*\0",
        "TIFF whose strips all lie on one another": tiff(
            small, codec="LZW", rows_each=1, segments=[pack(small, "LZW")], offsets=[8] * 64, counts=[2000] * 64
        ),
        "TIFF of 70000 strips": tiff(np.zeros((70_000, 1, 1), np.uint8), rows_each=1),
        "TIFF of 60000 strips, packed": tiff(np.zeros((60_000, 1, 1), np.uint8), rows_each=1, codec="PackBits"),
        **{
            f"TIFF of a strip of {what}": tiff(small, codec=codec, segments=[strip])
            for what, (codec, strip) in strips.items()
        },
        **{f"TIFF {what}": tiff(image, extra=tags) for what, tags in lies.items()},
        **{f"TIFF, packed, {what}": tiff(image, codec="LZW", extra=tags) for what, tags in lies.items()},
    }


def _no_images() -> dict[str, bytes]:
    """What is called .png and is none, or is an image and something else, too."""
    image = saved(Image.fromarray(pixels()), "PNG")
    archive = b"PK\x03\x04" + bytes(26)
    page = b"<!DOCTYPE html><script>alert(1)</script>"
    return {
        "no bytes": b"",
        "one byte": b"\x89",
        "zeros": bytes(5_000),
        "EXE": b"MZ\x90\0" + bytes(400),
        "ELF": b"\x7fELF" + bytes(400),
        "HTML": page,
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>',
        "SVG of entities": b'<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
        "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "ZIP": archive,
        "BigTIFF": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
        "AVIF": b"\0\0\0\x1cftypavif" + bytes(20),
        "AVI": b"RIFF\xff\0\0\0AVI LIST" + bytes(40),
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "PNG and ZIP": image + archive,
        "PNG and HTML": image + page,
        "GIF and script": b"GIF89a/*" + bytes(20) + b"*/=1;",
        "JPEG and script": b"\xff\xd8\xff\xe0/*" + bytes(90),
        "PNG of its signature alone": image[:8],
        "BMP of its signature alone": b"BM",
        "WebP of its signature alone": b"RIFF\xff\xff\xff\xffWEBP",
    }


def _cut() -> dict[str, bytes]:
    """Whole images that end at every hundredth of their length."""
    whole = _whole()
    kinds = ["PNG", "APNG", "JPEG", "JPEG, progressive", "BMP", "WebP", "WebP, lossless, alpha", "WebP, animated"]
    kinds += ["TIFF", "TIFF, LZW", "TIFF in tiles"]
    return {
        f"{kind}, cut at {percent} %": whole[kind][: len(whole[kind]) * percent // 100]
        for kind in kinds
        for percent in range(100)
    }
