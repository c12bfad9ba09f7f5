"""Ids that one disk takes for the same folder, and folders that somebody copied."""

import shutil

import pytest

from backend.common.errors import IncompatibleMemory, InvalidRequest
from backend.common.roi_key import RoiKey
from backend.storage import ModelStore
from tests.factories import memory_of, same_memory


def test_ids_that_differ_in_case_only_never_share_a_model(fitted_folder, tmp_path):
    """On a disk that takes both ids for one folder the second is refused. A copied folder can be fitted anew."""
    # As a case-insensitive file system shows it: the folder of the other id holds this one's memory.
    shutil.copytree(fitted_folder[0], tmp_path / "master1" / "pattern")
    twin, other = RoiKey("master1", "pattern"), RoiKey("Copied", "Pattern")
    for use in (ModelStore(tmp_path).load, ModelStore(tmp_path).memory_id):
        with pytest.raises(IncompatibleMemory, match=r"refit.*fitted for role 'Master1', roi 'Pattern'"):
            use(twin)
    with pytest.raises(InvalidRequest, match="use other ids"):
        ModelStore(tmp_path).check_savable(twin)

    # A folder that somebody copied is another matter: a refit makes it this ROI's own.
    shutil.copytree(fitted_folder[0], tmp_path / "Copied" / "Pattern")
    ModelStore(tmp_path).check_savable(other)
    ModelStore(tmp_path).save_memory(other, memory_of(2), {})
    assert same_memory(ModelStore(tmp_path).load(other), memory_of(2))
