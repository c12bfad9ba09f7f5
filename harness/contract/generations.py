"""The requests of every generation of clients, as they write them: from the first question to a judged part."""

from dataclasses import replace

from harness.contract.client import Client, Step, texts_of
from harness.contract.pictures import HEIGHT, WIDTH, crop, crops, encoded, part, scratched
from harness.gui import Gui, Part, Reply, image_parts, meta, number

SHAPES = {
    "rect": f'{{"kind":"rect","x":0,"y":0,"w":{WIDTH},"h":{HEIGHT}}}',
    "circle": '{"kind":"circle","cx":75,"cy":60,"r":52.5}',
    "annulus": '{"kind":"annulus","cx":75,"cy":60,"r":52.5,"r_inner":14.5}',
}
ROI = {"role_id": "Master1", "roi_id": "Pattern"}
SEED, MID, HEAD = ("Seed Role", "Pattern.1"), ("Mid", "Pattern"), ("Master1", "Pattern")
_GOOD, _DEFECTIVE = crops(0, 1, 2), crops(20, 21, 22, of=scratched)


def image(content: bytes, name: str = "image", kind: str = "image/png", filename: str = "crop.png") -> Part:
    """The file of an inference."""
    return Part(name, content, kind, filename)


def _scored(client: Client, reply: Reply) -> None:
    client.notes.setdefault("scores", []).append(reply.json["score"])


def _seed_calibrates(client: Client, ng: list[float] | None) -> Reply:
    return client.gui().calibrate(*SEED, client.notes["scores"][-2:], ng, area_mm2_thr=0.04, score_percentile=99)


def _seed_shape(kind: str) -> Step:
    def infer(client: Client) -> Reply:
        shape = Part("shape", SHAPES[kind].encode(), "application/json; charset=utf-8")
        return client.gui().multipart("/infer", [*client.gui().roi(*SEED), image(_DEFECTIVE[0]), shape])

    return infer


def _infer_as(suffix: str) -> Step:
    file = image(encoded(part(5), suffix), kind="image/x", filename=f"a{suffix}")
    return lambda client: client.gui().multipart("/infer", [*client.gui().roi("Book", "Pattern"), file])


def _head_infers(shape: str) -> Step:
    return lambda client: client.head().infer(*HEAD, crop(9), shape)


def _of_mid(gui: Gui) -> list[Part]:
    return [*gui.roi(*MID, mm_per_px=1e-05), *texts_of(model_key="A key of its own")]


GENERATIONS: dict[str, Step] = {
    # seed: images[0], images[1], …, the shape as a JSON part, scores before any calibration
    "not fitted for seed": lambda client: client.gui().infer(*SEED, _GOOD[0]),
    "seed's fit with a truncated image": lambda client: client.gui().fit(
        *SEED, [_GOOD[0], _GOOD[1][:700]], field="images[{}]"
    ),
    "seed's fit without images": lambda client: client.gui().fit(*SEED, []),
    "seed's fit": lambda client: client.gui().fit(*SEED, _GOOD, field="images[{}]"),
    "seed infers uncalibrated": lambda client: _scored(client, client.gui().infer(*SEED, crop(3))),
    "seed infers uncalibrated again": lambda client: _scored(client, client.gui().infer(*SEED, crop(4))),
    "seed calibrates without NG": lambda client: _seed_calibrates(client, None),
    "seed calibrates with NG": lambda client: _seed_calibrates(client, [0.9, 1]),
    **{f"seed infers a {kind}": _seed_shape(kind) for kind in SHAPES},
    "seed's state": lambda client: client.gui().ask("/state", role_id=SEED[0], roi_id=SEED[1]),
    # mid: octet streams, every embedding, a model key, the field called file
    "mid's fit": lambda client: client.gui().multipart(
        "/fit_ok",
        [
            *_of_mid(client.gui()),
            *texts_of(memory_fit="true"),
            *(replace(file, content_type="application/octet-stream") for file in image_parts(_GOOD[:2])),
        ],
    ),
    "mid infers a file": lambda client: client.gui().multipart(
        "/infer", [*_of_mid(client.gui()), image(_GOOD[0], "file", "application/octet-stream", "crop")]
    ),
    "mid calibrates": lambda client: client.gui().chunked_json(
        "/calibrate_ng",
        f'{{"role_id":"Mid","roi_id":"Pattern","mm_per_px":1E-05,"ok_scores":[{number(0.25)},1],"ng_scores":[],'
        '"area_mm2_thr":1E-10,"score_percentile":99,"model_key":"A key of its own"}',
    ),
    "mid infers": lambda client: client.gui().multipart("/infer", [*_of_mid(client.gui()), image(_DEFECTIVE[1])]),
    "mid's state": lambda client: client.gui().ask("/state", role_id=MID[0], roi_id=MID[1], model_key="Other"),
    # the playbook: images[], integers
    "the playbook's fit": lambda client: client.gui().multipart(
        "/fit_ok",
        [*client.gui().roi("Book", "Pattern", 1), *(image(one, "images[]", filename="a.png") for one in _GOOD[:2])],
    ),
    "the playbook calibrates": lambda client: client.gui().calibrate(
        "Book", "Pattern", [1, 2], None, area_mm2_thr=1, score_percentile=95
    ),
    **{f"an image as {suffix}": _infer_as(suffix) for suffix in (".jpg", ".bmp", ".webp")},
    # head: a recipe in a header of every request
    "not fitted for head": lambda client: client.head().infer(*HEAD, _GOOD[0]),
    "head's state before": lambda client: client.head().ask("/state", **ROI, model_key="Pattern"),
    "head uploads": lambda client: client.notes.update(
        ok=client.head()
        .upload(
            *HEAD, "ok", crops(*range(4)), [meta(*HEAD, "ok", f"{n}.png", shape=SHAPES["circle"]) for n in range(4)]
        )
        .json["files"]
    ),
    "head uploads NG": lambda client: client.head().upload(
        *HEAD, "ng", _DEFECTIVE[:2], [meta(*HEAD, "ng", f"bad {n}.png") for n in range(2)]
    ),
    "head uploads without metadata": lambda client: client.head().upload(*HEAD, "ng", _DEFECTIVE[2:]),
    "head's list": lambda client: client.head().ask("/datasets/list", **ROI),
    "head's file": lambda client: client.head().ask(
        "/datasets/file", **ROI, label="ok", filename=client.notes["ok"][0]
    ),
    "head's metadata": lambda client: client.head().ask(
        "/datasets/meta", **ROI, label="ok", filename=client.notes["ok"][1]
    ),
    "metadata by the name that a client gave": lambda client: client.head().ask(
        "/datasets/meta", **ROI, label="ng", filename="bad 1.png"
    ),
    "head's fit": lambda client: client.head().fit_dataset(*HEAD),
    "head infers uncalibrated": lambda client: client.head().infer(*HEAD, _DEFECTIVE[0]),
    "head calibrates from its images": lambda client: client.head().chunked_json(
        "/calibrate_dataset",
        '{"role_id":"Master1","roi_id":"Pattern","default_mm_per_px":0.2,"score_percentile":99,"area_mm2_thr":1}',
    ),
    "head calibrates by a rate": lambda client: client.head().chunked_json(
        "/calibrate_dataset",
        '{"role_id":"Master1","roi_id":"Pattern","require_ng":false,"target_false_reject_rate":0.5}',
    ),
    "head chooses the percentile": lambda client: client.head().chunked_json(
        "/calibrate_dataset", '{"role_id":"Master1","roi_id":"Pattern","choose_percentile":true}'
    ),
    **{f"head infers a {kind}": _head_infers(shape) for kind, shape in SHAPES.items()},
    "head judges its images": lambda client: client.head().chunked_json(
        "/infer_dataset",
        '{"role_id":"Master1","roi_id":"Pattern","labels":["ng","ok"],"include_heatmap":true,"default_mm_per_px":0.2}',
    ),
    "head judges its NG images": lambda client: client.head().chunked_json(
        "/infer_dataset", '{"role_id":"Master1","roi_id":"Pattern","labels":["NG"]}'
    ),
    "head's state": lambda client: client.head().ask("/state", **ROI, model_key="Pattern"),
    "head's manifest": lambda client: client.head().ask("/manifest", **ROI),
    "head's bank": lambda client: client.head().ask("/bank", **ROI),
}
