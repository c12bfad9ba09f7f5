"""16-bit files of 10, 12 and 14 bits score what the same picture scores at 8 bits; what contradicts that is refused."""

import contextlib
import json
import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from backend.bit_depth import NOT_SETTLED, BitDepth, decode, settle
from backend.commands.evaluate.evaluation import evaluate
from backend.commands.evaluate.layouts import find_categories
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import DamagedMemory, InvalidImage, InvalidRequest
from backend.common.roi_key import RoiKey
from backend.features import DinoV2Features
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import calibrate_stored, fit_stored, infer_stored
from backend.service.explain import explain
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.pictures import NO_PICTURES
from backend.service.scoring import Scoring
from backend.service.uploads import store_images
from backend.storage import ModelStore
from backend.utils import ImageLimits, NamedImage, decode_image
from harness.hostile_files import png_chunk
from harness.images import solar_cells
from harness.tiff_files import tiff

pytestmark = pytest.mark.slow

KEY = RoiKey("Master1", "Pattern")
LIMITS = ImageLimits(64 << 20, 1_000_000)
DEPTHS = (10, 12, 14, 16)
Wide = npt.NDArray[np.uint16]


def stained(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A dark stain, and a light one."""
    painted = image.copy()
    cv2.circle(painted, (90, 110), 22, (25, 25, 25), -1)
    cv2.circle(painted, (200, 190), 14, (235, 235, 235), -1)
    return painted


def as_bits(image: npt.NDArray[np.uint8], bits: int) -> Wide:
    """The picture as a camera of so many bits has it: the lower bits are its noise."""
    noise = np.random.default_rng(7).integers(0, 1 << (bits - 8), image.shape)
    return ((image.astype(np.uint16) << (bits - 8)) + noise).astype(np.uint16)


def png(image: npt.NDArray[np.generic], sbit: int | None = None) -> bytes:
    content = bytes(cv2.imencode(".png", image)[1].tobytes())
    if sbit is None:
        return content
    chunk = png_chunk(b"sBIT", bytes([sbit] * (1 if image.ndim == 2 or image.shape[2] == 1 else 3)))
    return content[:33] + chunk + content[33:]  # behind the header


def named(contents: list[bytes]) -> list[NamedImage]:
    return [NamedImage(f"{number}.png", lambda content=content: content) for number, content in enumerate(contents)]


def settled(contents: list[bytes], base: BitDepth | None = None) -> BitDepth | None:
    return settle(named(contents), LIMITS, lambda image: contextlib.nullcontext(), base)


def flat(value: int, sbit: int | None = None) -> bytes:
    """A grey image whose largest number is `value`, the others about half of it."""
    image = np.full((20, 30), value // 2, np.uint16)
    image[5, 5] = value
    return png(image, sbit)


class TestSettle:
    @pytest.mark.parametrize(
        ("brightest", "bits"),
        [
            (1, 8),
            (255, 8),
            (256, 10),
            (1023, 10),
            (1024, 12),
            (4095, 12),
            (4096, 14),
            (16383, 14),
            (16384, 16),
            (65535, 16),
        ],
    )
    def test_the_largest_number_of_a_fit_says_how_many_bits_there_are(self, brightest, bits):
        assert settled([flat(max(1, brightest * 2 // 3)), flat(brightest)]) == BitDepth(bits, brightest)

    def test_images_of_8_bits_settle_nothing_and_do_not_contradict(self):
        eight = png(np.full((20, 30), 200, np.uint8))
        assert settled([eight]) is None
        assert settled([eight, flat(4000)]) == BitDepth(12, 4000)
        assert settled([b"BM" + struct.pack("<IHHI", 34, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 1, 1, 24)]) is None

    def test_a_tiff_of_16_bits_is_asked_too(self):
        wide = np.full((20, 30, 3), 700, np.uint16)
        assert settled([tiff(wide, order=">"), tiff(wide, codec="LZW")]) == BitDepth(10, 700)

    def test_sbit_says_the_depth_where_the_parts_are_dark(self):
        assert settled([flat(700, sbit=12), flat(900, sbit=12)]) == BitDepth(12, 900)
        assert settled([flat(700, sbit=12), flat(900)]) == BitDepth(12, 900)

    def test_numbers_that_are_scaled_up_as_sbit_demands_have_16_bits(self):
        scaled = [flat(4000 << 4, sbit=12), flat(3000 << 4, sbit=12), flat(200 << 4, sbit=12)]
        assert settled(scaled) == BitDepth(16, 64000)

    @pytest.mark.parametrize("sbit", [0, 5, 17, 255])
    def test_an_sbit_that_cannot_be_says_nothing(self, sbit):
        assert settled([flat(900, sbit=sbit)]) == BitDepth(10, 900)

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            ([flat(1011), flat(4020)], r"0\.png reaches 1011, 1\.png reaches 4020"),
            ([flat(4020), flat(65000)], r"0\.png reaches 4020, 1\.png reaches 65000"),
            (
                [flat(900, sbit=10), flat(900, sbit=12)],
                r"0\.png reaches 900 and says 10 bits \(sBIT\), 1\.png reaches 900 and says 12",
            ),
            ([flat(900, sbit=10), flat(4000)], r"0\.png reaches 900 and says 10 bits \(sBIT\), 1\.png reaches 4000"),
        ],
    )
    def test_images_that_do_not_agree_are_refused_with_their_numbers(self, contents, message):
        with pytest.raises(InvalidRequest, match=f"use different numbers of bits: {message}"):
            settled(contents)

    def test_a_darker_part_and_a_black_image_are_no_contradiction(self):
        assert settled([flat(1000), flat(2500), flat(0)]) == BitDepth(12, 2500)

    def test_what_is_appended_to_decides(self):
        base = BitDepth(12, 4000)
        assert settled([flat(1500)], base) == base
        assert settled([png(np.zeros((9, 9), np.uint8))], base) == base
        with pytest.raises(InvalidImage, match="reaches 5000, but the memory bank was fitted on images of 12 bits"):
            settled([flat(5000)], base)

    def test_what_looks_like_fewer_bits_is_not_appended(self):
        with pytest.raises(
            InvalidRequest, match="reaches 900, but the images of the memory bank reach 4000: it probably has"
        ):
            settled([flat(900)], BitDepth(12, 4000))
        assert settled([flat(900, sbit=12)], BitDepth(12, 4000)) == BitDepth(12, 4000), "which says its depth"


class TestDecode:
    @pytest.mark.parametrize("bits", DEPTHS)
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_the_upper_8_of_the_bits_that_are_used_remain(self, bits, channels):
        eight = np.random.default_rng(bits).integers(0, 256, (40, 50, channels), np.uint8)
        wide = as_bits(eight, bits)
        contents = [png(wide), tiff(wide[..., [2, 1, 0, 3][:channels] if channels > 1 else [0]])]
        for content in contents:
            pixels, warning = decode(content, "a.png", LIMITS, BitDepth(bits, int(wide.max())))
            assert np.array_equal(pixels, np.broadcast_to(eight[..., : 3 if channels > 1 else 1], (40, 50, 3)))
            assert warning is None

    def test_full_16_bits_are_read_as_without_a_record_to_the_last_digit(self):
        every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        for image in (every, np.dstack([every, every[::-1], every.T]), np.dstack([every, every.T, every, every])):
            content = png(image)
            assert np.array_equal(
                decode(content, "a.png", LIMITS, BitDepth(16, 65535))[0], decode_image(content, "a.png", LIMITS)
            )
        # Grey with alpha, and a transparent grey, which OpenCV does not write.
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.repeat(every, 2, axis=1))
        for colour, extra, n in ((4, b"", 1), (0, png_chunk(b"tRNS", b"\0\x09"), 2)):
            header = struct.pack(">IIBBBBB", 256 * n, 256, 16, colour, 0, 0, 0)
            parts = png_chunk(b"IHDR", header), extra, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")
            content = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
            assert np.array_equal(
                decode(content, "a.png", LIMITS, BitDepth(16, 65535))[0], decode_image(content, "a.png", LIMITS)
            )

    def test_an_image_that_says_another_depth_is_converted_by_it(self):
        eight = np.random.default_rng(1).integers(0, 256, (40, 50), np.uint8)
        for bits in (8, 10, 12, 14):
            pixels, warning = decode(png(as_bits(eight, bits), bits), "a.png", LIMITS, BitDepth(12, 4000))
            assert np.array_equal(pixels[..., 0], eight)
            assert warning is None
        scaled = as_bits(eight, 16) & 0xFFC0
        assert np.array_equal(decode(png(scaled, 10), "a.png", LIMITS, BitDepth(12, 4000))[0][..., 0], eight)

    def test_numbers_beyond_the_banks_depth_are_refused(self):
        with pytest.raises(InvalidImage, match=r"a\.png: the image reaches 4096, .* 12 bits \(0 to 4095\)"):
            decode(flat(4096), "a.png", LIMITS, BitDepth(12, 4000))

    def test_an_image_that_looks_like_fewer_bits_is_warned_about(self):
        _, warning = decode(flat(1011), "a.png", LIMITS, BitDepth(12, 4020))
        assert warning is not None
        assert "reaches 1011, but those of the fit reach 4020" in warning
        assert decode(flat(1011), "a.png", LIMITS, BitDepth(12, 3000))[1] is None
        assert decode(flat(0), "a.png", LIMITS, BitDepth(12, 4020))[1] is None
        assert decode(flat(4020), "a.png", LIMITS, BitDepth(16, 65000))[1] is not None

    def test_without_a_record_16_bits_are_read_as_before_with_a_warning(self):
        content = flat(1000, sbit=10)
        pixels, warning = decode(content, "a.png", LIMITS, None)
        assert np.array_equal(pixels, decode_image(content, "a.png", LIMITS))
        assert warning == NOT_SETTLED
        assert decode(png(np.zeros((9, 9), np.uint8)), "a.png", LIMITS, None)[1] is None

    @pytest.mark.parametrize(
        "recorded", [7, {}, {"bits": 12}, {"bits": 7, "brightest": 1}, {"bits": 12, "brightest": 1 << 16}]
    )
    def test_a_damaged_record_is_an_error(self, recorded):
        with pytest.raises(DamagedMemory, match=r"bit depth .* is damaged: refit"):
            BitDepth.of({"bit_depth": recorded})

    def test_a_record_reads_back(self):
        assert BitDepth.of(json.loads(json.dumps(BitDepth(12, 4000).as_metadata()))) == BitDepth(12, 4000)


@pytest.fixture(scope="module")
def features(weights):
    """Half the usual size: what is compared here is equal at every size."""
    return DinoV2Features(OpenVinoRuntime(weights.path, 224), DEFAULT_MODEL, weights.sha256, 224)


@pytest.fixture(scope="module")
def cells() -> list[npt.NDArray[np.uint8]]:
    """Good solar cells, grey, and the last one stained: uint8 [H, W]."""
    grey = [cv2.cvtColor(cell, cv2.COLOR_BGR2GRAY) for cell in solar_cells(6)]
    return [*grey[:5], stained(grey[5])]


def service_in(folder, features) -> InspectionService:
    return InspectionService(Settings(models_dir=folder), features, ModelStore(folder))


def fitted_on(folder, features, contents: list[bytes], **options):
    service = service_in(folder, features)
    return service, fit(service, KEY, named(contents), mm_per_px=1, **options)


@pytest.fixture(scope="module")
def at_8_bits(cells, features, tmp_path_factory):
    """What the stained part scores at 8 bits, and what the good ones do, by which bank."""
    contents = [png(cell) for cell in cells]
    service, result = fitted_on(tmp_path_factory.mktemp("at_8_bits"), features, contents[:5])
    score = infer(service, KEY, named(contents)[5], Scoring(1)).inference.score
    assert score > max(result.ok_scores)
    return score, result.ok_scores, result.memory_id


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_stained_part_scores_at_every_depth_what_it_scores_at_8(cells, features, tmp_path, at_8_bits, bits, kind):
    wide = [as_bits(cell, bits) for cell in cells]
    contents = [png(cell) if kind == "png" else tiff(cell[..., None], codec="LZW") for cell in wide]
    service, result = fitted_on(tmp_path, features, contents[:5])
    judged = infer(service, KEY, named(contents)[5], Scoring(1))
    assert result.warning is None
    assert judged.warning is None
    reasons = explain(service, KEY, named(contents)[5], mm_per_px=1, shape=None, point=None, with_pictures=True)
    assert reasons.result.inference.score == judged.inference.score
    assert (judged.inference.score, result.ok_scores, result.memory_id) == at_8_bits


def test_banks_record_their_depth_where_it_is_not_8(cells, features, tmp_path):
    for name, contents, depth in (
        ("8", [png(cell) for cell in cells[:2]], None),
        ("12", [png(as_bits(cell, 12)) for cell in cells[:2]], 12),
        ("16", [png(as_bits(cell, 16)) for cell in cells[:2]], 16),
    ):
        service, _ = fitted_on(tmp_path / name, features, contents)
        recorded = service.fitted(KEY).metadata.get("bit_depth")
        assert (recorded and recorded["bits"]) == depth


def test_a_bank_of_8_bits_reads_16_as_before_and_warns(cells, features, tmp_path):
    service, _ = fitted_on(tmp_path, features, [png(cell) for cell in cells[:3]])
    twelve = as_bits(cells[5], 12)
    judged = infer(service, KEY, named([png(twelve)])[0], Scoring(1))
    dark = infer(service, KEY, named([png((twelve >> 8).astype(np.uint8))])[0], Scoring(1))
    assert judged.warning == NOT_SETTLED
    assert judged.inference.score == dark.inference.score
    assert dark.warning is None
    assert fit(service, KEY, named([png(twelve)]), mm_per_px=1, append=True).warning == NOT_SETTLED
    same_pixels = cv2.imencode(".png", twelve, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    assert same_pixels != png(twelve)
    assert fit(service, KEY, named([same_pixels]), mm_per_px=1, append=True).warning == NOT_SETTLED
    assert "bit_depth" not in service.fitted(KEY).metadata


def test_appended_images_are_read_as_the_bank_s_own(cells, features, tmp_path):
    at = {}
    for depth in (8, 12):
        contents = [png(cell if depth == 8 else as_bits(cell, depth)) for cell in cells]
        service, _ = fitted_on(tmp_path / str(depth), features, contents[:3])
        at[depth] = fit(service, KEY, named(contents[3:5]), mm_per_px=1, append=True, thumbnails=True).memory_id
    assert at[8] == at[12]
    assert service.fitted(KEY).metadata["bit_depth"]["bits"] == 12
    # The thumbnails are of the picture, and not nearly black.
    kept = [thumbnail for thumbnail in service.store.thumbnails(service.fitted(KEY)) if thumbnail]
    means = [cv2.imdecode(np.frombuffer(thumbnail, np.uint8), 0).mean() for thumbnail in kept]
    assert np.allclose(means, [cell.mean() for cell in cells[3:5]], atol=2)


def test_a_fit_whose_images_do_not_agree_changes_nothing(cells, features, tmp_path):
    contents = [png(as_bits(cells[0], 12)), png(as_bits(cells[1], 10))]
    service = service_in(tmp_path, features)
    with pytest.raises(InvalidRequest, match="use different numbers of bits"):
        fit(service, KEY, named(contents), mm_per_px=1)
    assert service.store.load(KEY) is None


def test_a_checkpoint_of_another_depth_is_not_gone_on_with(cells, features, tmp_path):
    contents = [png(as_bits(cell, 12)) for cell in cells[:2]]
    _, fresh = fitted_on(tmp_path / "fresh", features, contents)
    checkpoint = tmp_path / "checkpoint"
    declared = [png(as_bits(cell, 12), 14) for cell in cells[:2]]
    stopped = RuntimeError("stopped")

    def stop(step, done, total):
        if step == "coreset":
            raise stopped

    for given in (declared, contents):
        with pytest.raises(RuntimeError, match="stopped"):
            fitted_on(tmp_path / "stopped", features, given, checkpoint=checkpoint, on_progress=stop)
    assert len(list(checkpoint.iterdir())) == 4
    _, resumed = fitted_on(tmp_path / "resumed", features, contents, checkpoint=checkpoint)
    assert resumed.memory_id == fresh.memory_id


def test_stored_images_are_fitted_calibrated_and_judged_at_their_depth(cells, features, tmp_path):
    thresholds, scores = {}, {}
    for depth in (8, 12):
        folder = tmp_path / str(depth)
        service = InspectionService(Settings(models_dir=folder, min_ok_samples=3), features, ModelStore(folder))
        contents = [png(cell if depth == 8 else as_bits(cell, depth)) for cell in cells]
        store_images(service, KEY, "ok", named(contents[:5]), [])
        store_images(service, KEY, "ng", named(contents[5:]), [])
        fit_stored(service, KEY, mm_per_px=1, keep_all=False)
        for _ in range(2):  # the second time from the cache of scores
            done = calibrate_stored(service, KEY, CalibrationOptions(), default_mm_per_px=1, require_ng=True)
            assert NOT_SETTLED not in (done.warning or "")
        thresholds[depth] = done.calibration.threshold
        judged = []
        infer_stored(service, KEY, ["ng"], default_mm_per_px=1, wanted=NO_PICTURES, on_judged=judged.append)
        scores[depth] = [item.result.inference.score for item in judged]
    assert thresholds[8] == thresholds[12]
    assert scores[8] == scores[12]


def test_stored_16_bit_images_of_an_unsettled_bank_are_warned_about(cells, features, tmp_path):
    service, _ = fitted_on(tmp_path, features, [png(cell) for cell in cells[:3]])
    store_images(service, KEY, "ok", named([png(as_bits(cell, 12)) for cell in cells[3:5]]), [])
    for _ in range(2):
        done = calibrate_stored(service, KEY, CalibrationOptions(), default_mm_per_px=1, require_ng=False)
        assert done.warning is not None
        assert NOT_SETTLED in done.warning
        assert done.warning.endswith("(and 1 more like it)")


def test_stored_images_of_seemingly_fewer_bits_are_always_warned_about(cells, features, tmp_path):
    service, _ = fitted_on(tmp_path, features, [png(as_bits(cell, 12)) for cell in cells[:3]])
    store_images(service, KEY, "ok", named([png(as_bits(cells[3], 10))]), [])
    for _ in range(2):
        done = calibrate_stored(service, KEY, CalibrationOptions(), default_mm_per_px=1, require_ng=False)
        assert "if it has fewer than 12 bits, its score is meaningless" in (done.warning or "")


def test_an_evaluation_reads_every_image_as_the_training_images(cells, weights, tmp_path):
    scores = {}
    for depth in (8, 12):
        part = tmp_path / str(depth) / "part"
        for number, cell in enumerate(cells):
            kind = "train/good" if number < 4 else "test/good" if number == 4 else "test/stain"
            (part / kind).mkdir(parents=True, exist_ok=True)
            (part / kind / f"{number}.png").write_bytes(png(cell if depth == 8 else as_bits(cell, depth)))
        settings = Settings(models_dir=tmp_path / "none", weights=weights.path, input_size=112)
        scores[depth] = [
            case.score for case in evaluate(settings, str(part), find_categories(str(part))).results[0].cases
        ]
    assert scores[8] == scores[12]
