"""The published weights as the hub writes them, for tests that need its file without the hub."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[np.float32]]

_PARTS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_TOP = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}


def transformers_names(tensors: Mapping[str, npt.NDArray[np.float32]]) -> Tensors:
    """Rename timm's tensors as ``facebook/dinov2-small`` names them; the mask token that timm drops is zeros."""
    renamed: Tensors = {"embeddings.mask_token": np.zeros((1, 384), np.float32)}
    for name, tensor in tensors.items():
        if not name.startswith("blocks."):
            stem = next(stem for stem in _TOP if name == stem or name.startswith(stem + "."))
            renamed[_TOP[stem] + name.removeprefix(stem)] = tensor
            continue
        _, block, rest = name.split(".", 2)
        prefix = f"encoder.layer.{block}."
        if rest.startswith("attn.qkv."):
            for part, third in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                renamed[f"{prefix}attention.attention.{part}.{rest.rsplit('.')[-1]}"] = np.ascontiguousarray(third)
        else:
            stem = next(stem for stem in _PARTS if rest.startswith(stem))
            renamed[prefix + _PARTS[stem] + rest.removeprefix(stem)] = tensor
    return renamed
