"""Requests about recipes and stored images: locked scales, reserved names, deleted images."""

from harness.contract.client import Client, Step, texts_of
from harness.contract.generations import ROI, image
from harness.contract.pictures import crop, crops, scratched
from harness.gui import Part, Reply, meta

_SCALED = ("Master1", "Scaled")
_TIDY = {"role_id": "R", "roi_id": "Tidy"}


def _delete(filename: str, label: str = "ok") -> Step:
    def delete(client: Client) -> Reply:
        name = client.notes["tidy"][int(filename)] if filename.isdecimal() else filename
        return client.head("Tidy").ask("/datasets/file", "DELETE", **_TIDY, label=label, filename=name)

    return delete


def _reserved(path: str, method: str = "GET") -> Step:
    return lambda client: client.head("LAST").ask(path, method, **ROI, label="ok", filename="a.png")


def _meta_of(text: str) -> Step:
    return lambda client: client.head("Metas").upload("R", "Metas", "ok", crops(0), [text])


RECIPES: dict[str, Step] = {
    "an upload locks the scale": lambda client: client.head("Scale A").upload(
        *_SCALED, "ok", crops(0), [meta(*_SCALED, "ok", "a.png", 1e-05)]
    ),
    "409 fit at another scale": lambda client: client.head("Scale A").fit(*_SCALED, crops(0)),
    "409 inference at another scale": lambda client: client.head(" scale a ").infer(*_SCALED, crop(0)),
    "409 upload at another scale": lambda client: client.head("SCALE A").upload(
        *_SCALED, "ng", crops(0), [meta(*_SCALED, "ng", "a.png", 0.3)]
    ),
    "409 calibration at another scale": lambda client: client.head("Scale A").calibrate(*_SCALED, [0.1], None),
    "409 upload of two scales": lambda client: client.head("Scale A").upload(
        *_SCALED, "ok", crops(0, 1), [meta(*_SCALED, "ok", f"{scale}.png", scale) for scale in (1e-05, 0.5)]
    ),
    "a fit without a recipe at any scale": lambda client: client.gui().fit(*_SCALED, crops(0, 1)),
    "an inference without a recipe at any scale": lambda client: client.gui().infer(*_SCALED, crop(2), None, 0.7),
    "the default recipe's model serves a recipe": lambda client: client.head("Scale A").infer(
        *_SCALED, crop(2), None, 1e-05
    ),
    "a recipe calibrates the default recipe's model": lambda client: client.head("Line 7").calibrate(
        *_SCALED, [0.3, 0.4], [0.9], score_percentile=99
    ),
    "a fit under another key": lambda client: client.head("Line 7").fit(*_SCALED, crops(1, 2), model_key="Key 7"),
    "the model of another key": lambda client: client.head("Line 7").infer(*_SCALED, crop(2)),
    "the recipe default by name": lambda client: client.gui(X_Recipe_Id="DEFAULT").infer(*_SCALED, crop(2)),
    "a fit too few for": lambda client: client.head("Scale A").fit_dataset(*_SCALED, 1e-05),
    "a fit from images and files": lambda client: client.head().fit("Master1", "Pattern", crops(0), use_dataset="true"),
    "a dataset of nobody": lambda client: client.head("Nobody").ask("/datasets/list", role_id="A", roi_id="B"),
    "not fitted to calibrate": lambda client: client.head("Nobody").chunked_json(
        "/calibrate_dataset", '{"role_id":"A","roi_id":"B"}'
    ),
    "not fitted to infer": lambda client: client.head("Nobody").chunked_json(
        "/infer_dataset", '{"role_id":"A","roi_id":"B"}'
    ),
    "calibrated without NG images": lambda client: client.json(
        "/calibrate_dataset", {"role_id": "Book", "roi_id": "Pattern"}
    ),
    **{
        f"reserved: {method} {path}": _reserved(path, method)
        for method, path in (
            ("GET", "/state"),
            ("GET", "/manifest"),
            ("GET", "/drift"),
            ("GET", "/versions"),
            ("GET", "/datasets/list"),
            ("DELETE", "/datasets/clear"),
        )
    },
    "reserved: infer": lambda client: client.head("last").infer("A", "B", crop(0)),
    "reserved: fit": lambda client: client.head("last").fit("A", "B", crops(0)),
    "reserved: upload": lambda client: client.head("last").upload("A", "B", "ok", crops(0)),
    "reserved: calibrate": lambda client: client.head("last").calibrate("A", "B", [0.1], None),
    "a recipe in the form": lambda client: client.head("last").multipart(
        "/datasets/ok/upload",
        [*client.gui().roi("R", "Payload"), *texts_of(recipe_id="Own"), image(crop(0), "images")],
    ),
    "a recipe in the query": lambda client: client.head("last").ask(
        "/datasets/list", role_id="R", roi_id="Payload", recipe_id="OWN"
    ),
    "a recipe in JSON": lambda client: client.head("last").chunked_json(
        "/calibrate_ng", '{"role_id":"R","roi_id":"Payload","recipe_id":"own","mm_per_px":0.2,"ok_scores":[0.5]}'
    ),
    "a layout that is a path": lambda client: client.head("../../etc").upload("A", "B", "ok", crops(0)),
    "a layout that is a device": lambda client: client.head("CON").ask("/state", role_id="nul.txt", roi_id=". "),
    "a layout of 300 characters": lambda client: client.head("x" * 300).upload("A", "B", "ok", crops(0)),
    "a layout of 2000 characters": lambda client: client.head("x" * 2000).ask("/state", role_id="A", roi_id="B"),
    # images whose role the newest generation turns
    "an upload of an inspection": lambda client: client.head("Turned").upload(
        "Master1", "inspection_1", "ok", crops(0, 1, 2)
    ),
    "a fit of an inspection": lambda client: client.head("Turned").fit_dataset("Inspection", "inspection_1"),
    "state of an inspection": lambda client: client.head("Turned").ask(
        "/state", role_id="Master1", roi_id="inspection_1"
    ),
}

STORED_IMAGES: dict[str, Step] = {
    "images to tidy": lambda client: client.notes.update(
        tidy=client.head("Tidy")
        .upload(
            "R",
            "Tidy",
            "ok",
            crops(0, 1, 2, 3),
            [meta("R", "Tidy", "ok", name) for name in ("one.png", "two.png", "twice.png", "twice.png")],
        )
        .json["files"]
    ),
    "metas in an array": lambda client: client.head("Tidy").multipart(
        "/datasets/ng/upload",
        [
            *texts_of(role_id="R", roi_id="Tidy"),
            *(image(one, "images", filename=f"{n}.png") for n, one in enumerate(crops(20, 21, of=scratched))),
            Part("metas", b'[{"filename":"first.png","mm_per_px":0.2},{"angle":-0.5}]', "application/json"),
        ],
    ),
    "delete by the stored name": _delete("0"),
    "delete by the client's name": _delete("two.png"),
    "409 delete by the name of two": _delete("twice.png"),
    **{f"404 delete {name}": _delete(name) for name in ("../ok/a.png", "/etc/passwd", "..\\a.png", "nothing.png")},
    "404 delete of the other class": _delete("2", "ng"),
    "422 delete of no class": _delete("2", "worst"),
    "422 delete of a name of 2000 characters": _delete("x" * 2000),
    "404 file outside": lambda client: client.head("Tidy").ask(
        "/datasets/file", **_TIDY, label="ok", filename="../../../../etc/passwd"
    ),
    "404 metadata of nothing": lambda client: client.head("Tidy").ask(
        "/datasets/meta", **_TIDY, label="ok", filename="a.png"
    ),
    "422 clear outside": lambda client: client.head("Tidy").ask(
        "/datasets/clear", "DELETE", role_id="..", roi_id="..", label="../ok"
    ),
    "clear outside": lambda client: client.head("Tidy").ask(
        "/datasets/clear", "DELETE", role_id="../..", roi_id="..", label="ok"
    ),
    "list after": lambda client: client.head("Tidy").ask("/datasets/list", **_TIDY),
    "clear": lambda client: client.head("Tidy").ask("/datasets/clear", "DELETE", **_TIDY, label="ng"),
    "clear again": lambda client: client.head("Tidy").ask("/datasets/clear", "DELETE", **_TIDY, label="ng"),
    "422 one meta for two images": lambda client: client.head("Metas").upload("R", "Metas", "ok", crops(0, 1), ["{}"]),
    "422 no image to store": lambda client: client.head("Metas").upload("R", "Metas", "ok", []),
    "400 a broken image to store": lambda client: client.head("Metas").upload(
        "R", "Metas", "ok", [crop(0), crop(1)[:500]]
    ),
    "422 a meta of NaN": _meta_of('{"mm_per_px":NaN}'),
    "422 a meta that is a number": _meta_of("1"),
    "422 a meta of a bad scale": _meta_of('{"mm_per_px":-1}'),
    "422 a meta of half a character": _meta_of('{"filename":"\\ud800"}'),
    "422 a meta of 70,000 characters": _meta_of('{"x":"' + "x" * 70_000 + '"}'),
    "a meta of a bad shape": _meta_of('{"shape_json":"{\\"kind\\":\\"star\\"}","mm_per_px":0.2}'),
    "another good image": lambda client: client.head("Metas").upload("R", "Metas", "ok", crops(0, 1, 2)),
    "a fit of images one of which cannot be judged": lambda client: client.head("Metas").fit_dataset("R", "Metas"),
    "judged images one of which cannot be": lambda client: client.head("Metas").chunked_json(
        "/infer_dataset", '{"role_id":"R","roi_id":"Metas","default_mm_per_px":0.2}'
    ),
}
