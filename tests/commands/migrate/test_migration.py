"""`roi-anomaly migrate` on folders as older backends left them, with real images and the tests' own extractor."""

import base64
import hashlib
import io
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.common.config import Settings
from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.disk import memory_file
from backend.disk.datasets import DatasetStore
from backend.disk.layout import current_files, dataset_folder
from backend.disk.older_layouts import ids_of_stem
from backend.disk.recipes import RecipeStore
from backend.service.inspection import InspectionService
from backend.storage import ModelStore

PLAIN = RoiKey("Master1", "Pattern")


RECIPE = RoiKey("Master1", "Pattern", "line 1")


@pytest.fixture(scope="session")
def pngs(images):
    """Four different images as PNG files."""
    small = [cv2.resize(image, (120, 100), interpolation=cv2.INTER_AREA) for image in images[:4]]
    return [cv2.imencode(".png", image)[1].tobytes() for image in small]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder where models/ is MODELS_DIR, two good images make a fit, and no network may be loaded."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("MIN_OK_SAMPLES", "2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(InspectionService, "open", lambda _settings: pytest.fail("the network was loaded"))
    Path("old").mkdir()
    return tmp_path


@pytest.fixture
def network(work, features, monkeypatch):
    """Lets the command use the loaded extractor."""
    monkeypatch.setattr(
        InspectionService,
        "open",
        lambda settings: InspectionService(settings, features, ModelStore(settings.models_dir)),
    )


@pytest.fixture
def run(work, command_line):
    """Runs `migrate`; gives its exit status, the report and what went to stderr."""
    return partial(command_line, "migrate")


def stem(role, roi):
    return "__".join(base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in (role, roi))


B64 = stem("Master1", "Pattern")


def write(path, content):
    path = Path("old", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def write_memory(path, dim=1152, **more):
    path = Path("old", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, emb=np.zeros((7, dim), np.float32), token_h=32, token_w=32, **more)


def store_ok(folder, pngs, **metadata):
    for number, png in enumerate(pngs):
        write(f"{folder}/ok/{number}.png", png)
        write(f"{folder}/ok/{number}.json", metadata)


def tree(*roots):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for root in roots
        for path in Path(root).rglob("*")
    }


def line_of(report, *texts):
    """The one line of the report that has all these texts."""
    (line,) = [line for line in report.splitlines() if all(text in line for text in texts)]
    return line


def metadata_of(key, name, label="ok"):
    return DatasetStore(Path("models")).find(key, label, name).metadata()


# --- what is found


def test_models_of_every_layout_are_reported_and_never_copied(run):
    write_memory("Master1/Pattern/memory.npz")
    write_memory("Master1_Pattern.npz")
    write_memory(f"{B64}.npz", 384)
    write_memory(f"recipes/Line 1/Key7/{B64}.npz")
    write_memory(f"recipes/line-2/Pattern/{B64}.npz")
    before = tree("old")
    status, out, _ = run("old")
    assert status == 0
    for layout, *texts in [
        ("L0", "default", "Master1  ", "Pattern", "1152-d, 32x32, 7 patches", "needs a refit: no stored images"),
        ("L1", "Master1_Pattern", "needs a refit: its name does not state role and roi"),
        ("L2", "default", "384-d, 32x32, 7 patches", "needs a refit: no stored images"),
        ("L3", "line 1", "1152-d, 32x32, 7 patches, model_key Key7", "needs a refit: no stored images"),
        ("L4", "line-2", "1152-d, 32x32, 7 patches", "needs a refit: no stored images"),
    ]:
        assert line_of(out, f"model  {layout}", *texts)
    assert tree("old") == before
    assert not Path("models").exists()


def test_models_and_calibrations_of_this_service_are_no_old_ones(run):
    write_memory("Master1/Pattern/memory.npz", 384, version=1)
    write("Master1/Pattern/calib.json", {"threshold": 0.5, "memory_id": "1f"})
    assert run("old")[:2] == (0, "Nothing of an older backend was found in old.\n")


def test_old_names_that_are_base64_by_chance_are_taken_for_plain_ones():
    assert ids_of_stem(stem("A B", "ñ/🙂")) == ("A B", "ñ/🙂")
    for name in ("Master1_Pattern", "Master1__Pattern", "__", "A__B", "TWFz__", "é__é"):
        assert ids_of_stem(name) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"[", b"\x93NUMPY\x01\x00v"])
def test_damaged_files_are_lines_of_the_report(run, content):
    for path in ("Master1/Pattern/memory.npz", f"recipes/r/Pattern/{B64}.npz", f"{B64}_calib.json"):
        write(path, content)
    write("recipes/r/recipe_meta.json", content)
    write("recipes/s/recipe_meta.json", {"mm_per_px": 10**400})
    status, out, err = run("old")
    assert status == 0
    assert "Traceback" not in err
    assert "damaged" in line_of(out, "model  ", "L0")
    assert "damaged" in line_of(out, "model  ", "L4")
    assert "damaged" in line_of(out, "calibration", "L2")
    assert "damaged" in line_of(out, "recipe  ", " r ")
    assert "damaged" in line_of(out, "recipe  ", " s ")


def test_model_too_large_to_unpack_is_a_report_line_and_never_unpacked(run, monkeypatch):
    """A model that would unpack to more than it can be is reported as damaged or too large for the memory."""
    zeros = io.BytesIO()
    np.savez_compressed(zeros, emb=np.zeros((20_000, 256), np.float32), token_h=4, token_w=5)
    write("Master1/Bomb/memory.npz", zeros.getvalue())
    large = io.BytesIO()
    np.savez(large, emb=np.ones((20, 16), np.float32), token_h=4, token_w=5)
    write(f"{B64}.npz", large.getvalue())
    monkeypatch.setattr(memory_file, "free_memory", lambda: 4000)
    monkeypatch.setattr(np, "load", lambda *_arguments, **_options: pytest.fail("it was unpacked"))
    status, out, err = run("old")
    assert (status, "Traceback" in err) == (0, False)
    assert "damaged" in line_of(out, "model  ", "L0")
    assert "does not fit into memory" in line_of(out, "model  ", "L2")


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_refused(run, name):
    Path("file").touch()
    status, out, err = run(name)
    assert (status, out) == (2, "")
    assert f"{name}: give the models folder of the older backend" in err


# --- data sets


def test_images_are_copied_byte_for_byte_with_the_metadata_beside_them(run, pngs):
    folder = f"recipes/Line 1/datasets/{B64}"
    write(f"{folder}/ok/a.png", pngs[0])
    write(f"{folder}/ok/a.json", {"filename": "first.png", "angle": 1.5})
    write(f"{folder}/ng/b.PNG", pngs[1])
    write(f"{folder}/ng/b.PNG.json", b'\xef\xbb\xbf{"mm_per_px": NaN, "shape_json": "{}"}')
    write("datasets/A B/ro.i/ok/c.png", pngs[2])
    status, out, _ = run("old")
    assert status == 0
    store = DatasetStore(Path("models"))
    assert store.find(RECIPE, "ok", "a.png").read() == pngs[0]
    assert metadata_of(RECIPE, "a.png") == {"filename": "first.png", "angle": 1.5}
    assert store.find(RECIPE, "ng", "b.PNG").read() == pngs[1]
    assert metadata_of(RECIPE, "b.PNG", "ng") == {"mm_per_px": None, "shape_json": "{}"}
    assert store.find(RoiKey("A B", "ro.i"), "ok", "c.png").read() == pngs[2]
    assert "1 ok, 1 ng" in line_of(out, "data set  L3", "copied 2")
    assert "1 ok, 0 ng" in line_of(out, "data set  ", "A B", "ro.i", "copied 1")


def test_unsafe_or_taken_names_become_others_that_stay_the_same(run, pngs):
    """The new name holds a part of the hash of the image, so a second run of the migration writes nothing new."""
    names = {"é 1.png": pngs[0], ".hidden.png": pngs[1], "no-suffix": pngs[2]}
    for name, png in names.items():
        write(f"datasets/Master1/Pattern/ok/{name}", png)
    write("datasets/Master1/Pattern/ok/a.png", pngs[0])
    write(f"recipes/default/datasets/{B64}/ok/a.png", pngs[1])
    write(f"recipes/default/datasets/{B64}/ok/a.json", {"angle": 2})
    run("old")
    sha8 = [hashlib.sha256(png).hexdigest()[:8] for png in pngs]
    expected = {
        "a.png": pngs[0],
        f"_1-{sha8[0]}.png": pngs[0],
        f"_hidden-{sha8[1]}.png": pngs[1],
        f"no-suffix-{sha8[2]}.png": pngs[2],
        f"a-{sha8[1]}.png": pngs[1],
    }
    samples = DatasetStore(Path("models")).samples(PLAIN, "ok")
    assert {sample.name: sample.read() for sample in samples} == expected
    assert metadata_of(PLAIN, f"_1-{sha8[0]}.png")["filename"] == "é 1.png"
    assert metadata_of(PLAIN, f"a-{sha8[1]}.png") == {"angle": 2, "filename": "a.png"}
    before = tree("models")
    run("old")
    assert tree("models") == before


def test_files_that_are_no_images_are_named_and_not_copied(run, pngs, monkeypatch):
    monkeypatch.setenv("MAX_PIXELS", "12000")
    folder = "datasets/Master1/Pattern/ok"
    write(f"{folder}/good.png", pngs[0])
    write(f"{folder}/cut.png", pngs[0][:200])
    write(f"{folder}/cut.json", {})
    write(f"{folder}/notes.txt", b"hello")
    write(f"{folder}/large.bmp", cv2.imencode(".bmp", np.zeros((200, 200, 3), np.uint8))[1].tobytes())
    Path("old", folder, "link.png").symlink_to("nowhere")
    Path("old", folder, "below").mkdir()
    status, out, _ = run("old")
    assert status == 0
    assert list(DatasetStore(Path("models")).names(PLAIN, "ok")) == ["good.png"]
    assert "1 ok, 0 ng" in line_of(out, "data set  ", "copied 1; not copied: 5")
    for name, reason in [
        ("cut.png", "truncated or damaged"),
        ("notes.txt", "not an accepted image"),
        ("large.bmp", "200x200 pixels, at most 12000"),
        ("link.png", "cannot be read"),
        ("below", "not a regular file"),
    ]:
        assert reason in line_of(out, f"{folder}/{name}: not copied: ")


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"a": 1e999}'])
def test_image_with_metadata_that_is_no_json_object_is_still_copied(run, pngs, content):
    """Instead of the unreadable metadata it gets what is known: its role, ROI, label and file name."""
    write("datasets/Master1/Pattern/ok/a.png", pngs[0])
    write("datasets/Master1/Pattern/ok/a.json", content)
    status, out, _ = run("old")
    assert status == 0
    expected = {"role_id": "Master1", "roi_id": "Pattern", "label": "ok", "filename": "a.png"}
    assert metadata_of(PLAIN, "a.png") == expected
    assert line_of(out, "datasets/Master1/Pattern/ok/a.json: not a JSON object")


def test_ids_that_this_service_cannot_store_are_reported(run, pngs):
    write(f"datasets/{'é' * 100}/Pattern/ok/a.png", pngs[0])
    write("recipes/r/datasets/whatever/ok/a.png", pngs[0])
    write(b"datasets/\xff/Pattern/ok/a.png".decode("utf-8", "surrogateescape"), pngs[0])
    write(b"recipes/\xff/recipe_meta.json".decode("utf-8", "surrogateescape"), {"mm_per_px": 0.2})
    status, out, _ = run("old")
    assert status == 0
    assert out.count("not copied: its name does not state role and roi") == 3
    assert "not taken over: its name is not a recipe" in out
    assert not Path("models").exists()


def test_image_that_cannot_be_written_fails_its_line_and_the_others_go_on(run, pngs, monkeypatch):
    copy = DatasetStore.copy

    def full(self, key, *rest):
        if key.role_id == "A":
            raise StorageError("the image cannot be stored (No space left on device)")
        copy(self, key, *rest)

    monkeypatch.setattr(DatasetStore, "copy", full)
    write("datasets/A/Pattern/ok/a.png", pngs[0])
    write("datasets/B/Pattern/ok/a.png", pngs[0])
    status, out, _ = run("old")
    assert status == 1
    assert "failed: the image cannot be stored" in line_of(out, "data set  ", " A ")
    assert line_of(out, "data set  ", " B ", "copied 1")
    assert "1 failed" in out


# --- recipes and calibrations


def test_a_recipe_keeps_the_scale_it_was_locked_to(run):
    write("recipes/Line 1/recipe_meta.json", {"mm_per_px": 0.2, "created_at_utc": "2026-01-03T10:00:00Z"})
    status, out, _ = run("old")
    assert status == 0
    assert line_of(out, "recipe  ", "L3", "line 1", "mm_per_px 0.2", "locked the recipe to it")
    settings = json.loads(Path("models/@recipes/line 1/recipe.json").read_text(encoding="utf-8"))
    assert settings == {"recipe_id": "line 1", "mm_per_px": 0.2, "created_at_utc": "2026-01-03T10:00:00Z"}
    assert "there already" in line_of(run("old")[1], "recipe  ", "mm_per_px 0.2")


def test_a_lock_that_is_there_already_wins(run):
    with RecipeStore(Path("models")).locking_scale("line 1", 0.3):
        pass
    write("recipes/line 1/recipe_meta.json", {"mm_per_px": 0.2})
    before = tree("models")
    status, out, _ = run("old")
    assert status == 0
    assert line_of(out, "recipe  ", "mm_per_px 0.2", "not taken over: the recipe is locked to mm_per_px 0.3")
    assert tree("models") == before


def test_newest_layout_decides_between_two_folders_of_a_recipe(run):
    """A dry run decides in the same way: the recipe gets the scale of the newest layout."""
    write("recipes/LINE/recipe_meta.json", {"mm_per_px": 0.2})
    write("recipes/line/recipe_meta.json", {"mm_per_px": 0.3})
    for options in (["--dry-run"], []):
        out = run("old", *options)[1]
        assert line_of(out, "recipe  L4", "mm_per_px 0.3", "lock")
        assert line_of(out, "recipe  L3", "mm_per_px 0.2", "not taken over: the recipe is locked to mm_per_px 0.3")


def test_calibrations_become_history_as_they_are_and_are_never_applied(run):
    keyed = RoiKey("Master1", "Pattern", "line 1", "Key7")
    contents = {
        ("L0", PLAIN): ("Master1/Pattern/calib.json", b'{"threshold": 0.1, "p5_ng": NaN}'),
        ("L2", PLAIN): (f"{B64}_calib.json", b'{ "threshold": 0.2 }'),
        ("L3", keyed): (f"recipes/Line 1/Key7/{B64}_calib.json", b'{"threshold": 0.3}'),
    }
    for path, content in contents.values():
        write(path, content)
    write("Master1_Pattern_calib.json", {"threshold": 0.4})
    status, out, _ = run("old")
    assert status == 0
    for (layout, key), (_, content) in contents.items():
        folder = current_files(Path("models"), key).memory.parent
        sha8 = hashlib.sha256(content).hexdigest()[:8]
        assert (folder / "history" / f"calib-{layout}-{sha8}.json").read_bytes() == content
        assert not (folder / "calib.json").exists()
        assert line_of(out, "calibration", layout, "copied as history")
    assert line_of(out, "calibration", "L1", "Master1_Pattern", "threshold 0.4", "not copied")


# --- refits


@pytest.mark.slow
def test_rois_with_enough_images_are_fitted_under_their_old_model_key(run, network, pngs):
    """The scale comes from the recipe or the images, the old folder stays as it was, and a second run does nothing."""
    store_ok(f"recipes/Line 1/datasets/{B64}", pngs)
    write("recipes/Line 1/recipe_meta.json", {"mm_per_px": 0.2})
    write_memory(f"recipes/Line 1/Key7/{B64}.npz")
    store_ok("datasets/Master1/Top", pngs[:2], mm_per_px=0.5)
    before = tree("old")
    status, out, err = run("old")
    assert status == 0
    assert "refitted from the stored data set: 4 ok, 6 patches" in line_of(out, "model  ", "L3", "Key7")
    assert "copied 2; refitted from the stored data set: 2 ok" in line_of(out, "data set  ", "Top")
    assert out.splitlines()[-1].startswith("Calibrate refitted ROIs next: POST /calibrate_dataset")
    assert "extract: 100%" in err
    store = ModelStore(Path("models"))
    fitted = store.load(RoiKey("Master1", "Pattern", "line 1", "Key7"))
    assert (fitted.layout, fitted.metadata["mm_per_px"], fitted.metadata["source"]) == ("current", 0.2, "dataset")
    assert store.load(RoiKey("Master1", "Top")).metadata["mm_per_px"] == 0.5
    assert tree("old") == before
    assert not list(Path("models").glob(".fit-*"))

    migrated = tree("models")
    status, out, _ = run("old")
    assert status == 0
    assert line_of(out, "model  ", "Key7", "fitted already")
    assert line_of(out, "data set  ", "Top", "there already: 2; fitted already")
    assert tree("models", "old") == migrated | before


def test_inspection_roi_of_a_recipe_is_fitted_under_the_turned_role(run, network, pngs):
    """Clients turn the role of an inspection ROI into `Inspection`; the model is fitted where they look for it."""
    store_ok(f"recipes/line1/datasets/{stem('Master1', 'inspection-1')}", pngs[:2], mm_per_px=0.2)
    dry, out = run("old", "--dry-run")[1], run("old")[1]
    assert line_of(dry, "data set  ", "would refit from the stored data set: 2 ok")
    assert line_of(out, "data set  ", "refitted from the stored data set: 2 ok")
    fitted = ModelStore(Path("models")).load(RoiKey("Master1", "inspection-1", "line1"))
    assert fitted.key.role_id == "Inspection"


def test_roles_that_share_an_inspection_roi_fail_also_in_a_dry_run(run, pngs):
    """Several roles have images of one inspection ROI, and only one of them could have the model."""
    for role in ("A", "B"):
        store_ok(f"recipes/line1/datasets/{stem(role, 'inspection-1')}", pngs[:2], mm_per_px=0.2)
    for options in (["--dry-run"], []):
        status, out, _ = run("old", *options)
        assert status == 1
        assert line_of(out, "data set  ", " A ", "failed: several roles have images of roi 'inspection-1'")


@pytest.mark.parametrize(
    ("n_images", "scales", "options", "says"),
    [
        (1, [0.2], [], "not refitted, too few: 1 of 2 ok images"),
        (2, [], [], "not refitted: no mm_per_px is known"),
        (2, [0], [], "not refitted: no mm_per_px is known"),
        (2, [0.2, 0.1], [], "not refitted: its images differ in mm_per_px (0.1 to 0.2)"),
        (2, [0.2], ["--no-refit"], "needs a refit: 2 stored ok images (left out by --no-refit)"),
    ],
)
def test_what_is_not_refitted_says_why_and_loads_no_network(run, pngs, n_images, scales, options, says):
    for number, png in enumerate(pngs[:n_images]):
        write(f"datasets/Master1/Pattern/ok/{number}.png", png)
        if scales:
            write(f"datasets/Master1/Pattern/ok/{number}.json", {"mm_per_px": scales[number % len(scales)]})
    status, out, _ = run("old", *options)
    assert status == 0
    assert says in line_of(out, "data set  ")


def test_a_refit_that_fails_is_told_in_its_line_and_the_others_go_on(run, network, pngs):
    store_ok("datasets/Master1/A", pngs[:2], mm_per_px=0.2)
    store_ok("datasets/Master1/B", pngs[:2], mm_per_px=0.2)
    stored = dataset_folder(Path("models"), RoiKey("Master1", "A")) / "ok" / "broken.png"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"\x89PNG\r\n\x1a\n")
    status, out, _ = run("old")
    assert status == 1
    assert "failed: broken.png: " in line_of(out, "data set  ", " A ")
    assert "refitted" in line_of(out, "data set  ", " B ")
    assert "refitted 1 ROI, 1 failed" in out


def test_a_refit_that_is_stopped_goes_on_where_it_was(run, network, features, pngs, monkeypatch):
    store_ok("datasets/Master1/Pattern", pngs, mm_per_px=0.2)
    forward, sizes = features.runtime.forward, []
    monkeypatch.setattr(features.runtime, "batch", 3)

    def stopped(pixels):
        if sizes:
            raise KeyboardInterrupt
        sizes.append(len(pixels))
        return forward(pixels)

    def counted(pixels):
        sizes.append(len(pixels))
        return forward(pixels)

    with monkeypatch.context() as patched:
        patched.setattr(features.runtime, "forward", stopped)
        status, _, err = run("old")
    assert status == 130
    assert "stopped; run the same command again to resume" in err
    monkeypatch.setattr(features.runtime, "forward", counted)
    assert run("old")[0] == 0
    assert sizes == [3, 1], "no image was embedded twice"


# --- dry runs, and old folders that are MODELS_DIR


@pytest.fixture
def everything(work, pngs):
    """An old folder with something of everything."""
    store_ok(f"recipes/Line 1/datasets/{B64}", pngs)
    write("recipes/Line 1/recipe_meta.json", {"mm_per_px": 0.2})
    write_memory(f"recipes/Line 1/Pattern/{B64}.npz")
    write(f"recipes/Line 1/Pattern/{B64}_calib.json", {"threshold": 0.3})
    store_ok("datasets/Master1/Pattern", pngs[:2], mm_per_px=0.2)
    write_memory("Master1/Pattern/memory.npz")
    write("Master1/Pattern/calib.json", {"threshold": 0.1})
    write("datasets/Master1/Pattern/ok/notes.txt", b"hello")


def test_a_dry_run_writes_nothing_and_reports_what_a_run_then_does(run, everything, features, monkeypatch):
    before = tree(".")
    status, dry, _ = run("old", "--dry-run")
    assert status == 0
    assert tree(".") == before
    assert "(dry run: nothing was written)" in dry
    monkeypatch.setattr(
        InspectionService,
        "open",
        lambda settings: InspectionService(settings, features, ModelStore(settings.models_dir)),
    )
    out = run("old")[1]
    for would, did in zip(dry.splitlines()[:-3], out.splitlines()[:-3], strict=True):
        told = would
        for verb, past in [("copy", "copied"), ("lock", "locked"), ("refit", "refitted")]:
            told = told.replace(f"would {verb}", past)
        assert did.startswith(told)


def test_old_folder_may_be_the_models_folder_and_its_files_stay(run, network, everything, monkeypatch):
    """New files are added beside the old ones, and a second run changes nothing."""
    monkeypatch.setenv("MODELS_DIR", "old")
    before = tree("old")
    status, out, _ = run("old")
    assert status == 0
    assert before.items() <= tree("old").items()
    assert "refitted from the stored data set: 4 ok" in line_of(out, "model  ", "L3")
    assert "needs a refit, which replaces the old model in its place: POST /fit_ok" in line_of(out, "model  ", "L0")
    assert ModelStore(Path("old")).load(RECIPE).layout == "current"
    migrated = tree("old")
    assert run("old")[0] == 0
    assert tree("old") == migrated
