"""What a change did in its scratch folder: what is stored of it, and that nothing else is passed over in silence."""

from dataclasses import replace

import pytest

from backend.common.errors import Conflict
from backend.object_store.units import model_unit
from tests.factories import IN_RECIPE, KEY, calibration_of, memory_of

BANK = "Master1/Pattern/memory.npz"


@pytest.mark.parametrize("change", ["written", "changed", "deleted"])
def test_change_of_files_of_another_roi_is_refused(replica, change):
    one = replica()
    one.models.save_memory(KEY, memory_of(1), {})
    bank = "Master1/Other/memory.npz" if change == "written" else BANK

    def work(folder):
        (folder / bank).parent.mkdir(parents=True, exist_ok=True)
        (folder / bank).unlink(missing_ok=True)
        if change != "deleted":
            (folder / bank).write_bytes(b"another")

    with pytest.raises(Conflict, match=f"^{bank} was changed by others meanwhile; nothing was stored"):
        one.mirror.change(model_unit(IN_RECIPE), work, [model_unit(KEY)], lambda path: path == BANK)
    assert (one.generation(KEY), one.generation(IN_RECIPE)) == (1, 0)


def test_calibration_of_a_roi_that_got_a_model_of_its_own_is_refused(replica, monkeypatch):
    """It was found under another role; until the change, somebody fitted it under its own."""
    one = replica()
    one.models.save_memory(IN_RECIPE, memory_of(1), {})
    found = one.models.load(IN_RECIPE)
    elsewhere = replace(found, key=replace(found.key, role_id="Golden"))
    monkeypatch.setattr(one.models, "load", lambda *_, **__: elsewhere)
    with pytest.raises(Conflict, match="was changed by others meanwhile"):
        one.models.save_calibration(IN_RECIPE, calibration_of(found))
    assert one.generation(IN_RECIPE) == 1


def test_file_that_gets_another_name_is_not_uploaded_again(replica, faults):
    one = replica(faults.endpoint)
    one.models.save_memory(KEY, memory_of(1), {})
    faults.counts.clear()
    one.mirror.change(model_unit(KEY), lambda folder: (folder / BANK).rename(folder / f"{BANK}.old"))
    assert faults.counts == {"GET": 1, "HEAD": 1, "PUT": 1}
    assert list(replica().mirror.look(model_unit(KEY)).files) == [f"{BANK}.old"]
