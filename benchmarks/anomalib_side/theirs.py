"""anomalib's side; runs in its own environment and imports nothing of the service."""

import json
import os
import random
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.anomalib_side.worker import serve


def _declare_missing_torchvision_operators() -> torch.library.Library | None:
    # torchvision's CUDA build does not load beside a CPU build of torch, and then lacks the operators that it gives
    # shapes to when it is imported. anomalib calls none of them.
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


_declared = _declare_missing_torchvision_operators()  # lives as long as its operators

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as backend/network/openvino_library.py

from anomalib.data import ImageBatch  # noqa: E402  (after the operators it needs)
from anomalib.data.utils import Split, read_image  # noqa: E402
from anomalib.data.utils.synthetic import make_synthetic_dataset  # noqa: E402
from anomalib.data.utils.tiler import Tiler  # noqa: E402
from anomalib.deploy import OpenVINOInferencer  # noqa: E402
from anomalib.metrics import F1AdaptiveThreshold  # noqa: E402
from anomalib.models.components import KCenterGreedy  # noqa: E402
from anomalib.models.image import AnomalyDINO, Patchcore  # noqa: E402
from pandas import DataFrame  # noqa: E402


class Theirs:
    """The orders."""

    def open(self, weights: str, scratch: str, input_size: int, sampling_ratio: float | None) -> dict[str, Any]:
        """Build AnomalyDINO; a `sampling_ratio` of None keeps every embedding, which is its default."""
        os.chdir(scratch)  # its OpenVINO cache is written to the working directory
        self._model = AnomalyDINO(
            encoder_name=f"local-dir:{_model_folder(Path(weights), Path(scratch))}",
            coreset_subsampling=sampling_ratio is not None,
            sampling_ratio=sampling_ratio or 1,
            pre_processor=AnomalyDINO.configure_pre_processor((input_size, input_size)),
        )
        _require_weights(self._model.model.feature_encoder.feature_extractor, weights)
        return {"name": f"anomalib {version('anomalib')}"}

    def open_patchcore(self, weights: str, scratch: str, input_size: int) -> dict[str, Any]:
        """Build PatchCore on two blocks of the same network, three quarters deep and last, as its default is on two."""
        self._model = Patchcore(
            backbone=f"local-dir:{_model_folder(Path(weights), Path(scratch))}",
            layers=("blocks.8", "blocks.11"),
            pre_processor=Patchcore.configure_pre_processor((input_size, input_size)),
        )
        _require_weights(self._model.model.feature_extractor.feature_extractor, weights)
        return {"name": f"anomalib {version('anomalib')}"}

    def open_tiled_patchcore(
        self, weights: str, scratch: str, ratio: float, canvas: int, tile: int, stride: int
    ) -> dict[str, Any]:
        """Build PatchCore as `open_patchcore` does, over tiles of a larger canvas; sizes in pixels."""
        os.chdir(scratch)
        self._model = Patchcore(
            backbone=f"local-dir:{_model_folder(Path(weights), Path(scratch))}",
            layers=("blocks.8", "blocks.11"),
            coreset_sampling_ratio=ratio,
            pre_processor=Patchcore.configure_pre_processor((canvas, canvas)),
        )
        _require_weights(self._model.model.feature_extractor.feature_extractor, weights)
        self._model.model.tiler = Tiler(tile, stride)
        return {"name": f"anomalib {version('anomalib')}"}

    def tokens(self, pixels: str, output: str) -> None:
        """Patch tokens [rows * columns, D] of float32 [3, side, side], preprocessed, as its extractor gives them."""
        with torch.inference_mode():
            tokens = self._model.model.extract_features(torch.from_numpy(np.load(pixels))[None])[0]
        np.save(output, tokens.numpy())

    def fit(self, images: list[str]) -> dict[str, Any]:
        """Build the memory bank of image files, without the cost of a Lightning trainer."""
        self._model.train()
        with torch.no_grad():
            for image in images:
                self._model.model(self._model.pre_processor(read_image(image, as_tensor=True)[None]))
            collected = time.perf_counter()
            self._model.fit()
            coreset_s = time.perf_counter() - collected
        self._model.eval()
        bank = self._model.model.memory_bank
        return {"bank": len(bank), "bank_mb": bank.nbytes / 1e6, "coreset_s": coreset_s}

    def infer(self, image: str) -> dict[str, Any]:
        """Score one image file on torch, anomaly map included."""
        with torch.inference_mode():
            prediction = self._model(read_image(image, as_tensor=True)[None])
        return {"score": float(prediction.pred_score)}

    def threshold(self, scores: list[float], labels: list[int]) -> dict[str, Any]:
        """What its post-processor sets after a validation epoch with these scores; 1 labels a defective image."""
        metric = F1AdaptiveThreshold(fields=["pred_score", "gt_label"], strict=False)
        metric.update(
            ImageBatch(
                image=torch.zeros(len(scores), 3, 1, 1),
                pred_score=torch.tensor(scores),
                gt_label=torch.tensor(labels, dtype=torch.bool),
            )
        )
        return {"threshold": float(metric.compute())}

    def synthesize(self, images: list[str], folder: str, seed: int) -> dict[str, Any]:
        """Give half of good images synthetic defects, as ``ValSplitMode.SYNTHETIC`` does; images and their labels."""
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        good = {"label": "normal", "label_index": 0, "mask_path": "", "split": Split.TRAIN}
        folders = [Path(folder) / name for name in ("abnormal", "ground_truth")]
        for place in folders:
            place.mkdir(parents=True)
        made = make_synthetic_dataset(DataFrame([{"image_path": image, **good} for image in images]), *folders)
        return {"images": made.image_path.tolist(), "labels": made.label_index.tolist()}

    def export(self) -> dict[str, Any]:
        """Write the fitted model for OpenVINO."""
        return {"path": str(self._model.to_openvino("export").resolve())}

    def open_exported(self, path: str, scratch: str, precision: str | None) -> dict[str, Any]:
        """Load an exported model; a `precision` of None is the one that OpenVINO chooses."""
        os.chdir(scratch)
        config = {"INFERENCE_PRECISION_HINT": precision} if precision else None
        self._exported = OpenVINOInferencer(path, device="CPU", config=config)
        return {"precision": self._exported.model.get_property("INFERENCE_PRECISION_HINT").to_string()}

    def infer_exported(self, image: str) -> dict[str, Any]:
        """Score one image file on OpenVINO, anomaly map included."""
        return {"score": float(self._exported.predict(image).pred_score.item())}

    def load(self, embeddings: str) -> None:
        """Read float32 [N, D], L2-normalised."""
        self._embeddings = torch.from_numpy(np.load(embeddings))

    def select(self, n_select: int, seed: int) -> dict[str, Any]:
        """Its greedy: in a random projection, from a random start."""
        torch.manual_seed(seed)
        np.random.seed(seed)  # the projection draws from this generator
        ratio = (n_select + 0.5) / len(self._embeddings)  # it rounds the product down
        sampler = KCenterGreedy(self._embeddings, ratio)
        return {"picks": sampler.select_coreset_idxs(), "dimensions": sampler.features.shape[1]}


def _require_weights(network: torch.nn.Module, weights: str) -> None:
    loaded, published = network.state_dict(), load_file(weights)
    assert loaded.keys() == published.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in published.items())


def _model_folder(weights: Path, scratch: Path) -> Path:
    """The weights as timm reads them from a folder, with the facts that it registers for this network."""
    folder = scratch / "vit_small_patch14_dinov2"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(weights.resolve())
    facts = {"input_size": [3, 518, 518], "fixed_input_size": True, "num_classes": 0}
    (folder / "config.json").write_text(json.dumps({"architecture": folder.name, "pretrained_cfg": facts}))
    return folder


if __name__ == "__main__":
    serve(Theirs())
