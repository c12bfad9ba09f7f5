"""The reply of `/fit_ok` where a fit is too large to score all of its images."""

from backend.bank import building, leave_one_out_sample
from tests.factories import encoded, smooth_parts

IDS = {"role_id": "Master1", "roi_id": "Pattern", "mm_per_px": 0.2}


def fit(client):
    files = [("images", (f"{n}.png", encoded(image), "image/png")) for n, image in enumerate(smooth_parts(4))]
    return client.post("/fit_ok", data=IDS, files=files).json()


def test_a_sample_is_no_list_of_ok_scores(client, monkeypatch):
    """`ok_scores` has one score for each image, in their order, or is left out."""
    every = fit(client)
    assert "ok_scores_sample" not in every
    monkeypatch.setattr(building, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(leave_one_out_sample, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(leave_one_out_sample, "LEAST_SAMPLED", 2)
    reply = fit(client)
    assert "ok_scores" not in reply
    assert [image.keys() for image in reply["ok_scores_sample"]] == [{"index", "filename", "score"}] * 2
    for image in reply["ok_scores_sample"]:
        assert image["filename"] == f"{image['index']}.png"
        assert abs(image["score"] - every["ok_scores"][image["index"]]) < 0.01
    assert "a random sample of 2 of the 4 images was scored (ok_scores_sample)" in reply["warning"]
    bank = client.get("/bank", params={"role_id": "Master1", "roi_id": "Pattern"}).json()
    scored = [number for number, image in enumerate(bank["images"]) if "score" in image]
    assert scored == [image["index"] for image in reply["ok_scores_sample"]]
