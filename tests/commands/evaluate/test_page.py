"""The report as a page: it needs nothing from anywhere, and names are text in it."""

import base64
import json

import cv2
import numpy as np

from backend.commands.evaluate import page as report_page
from tests.commands.evaluate.reports import Page, results

HOSTILE = "<img src=x onerror=alert(1)>&\"'.png"


def by_need(threshold):
    """Sorts images judged wrongly first, then those nearest to the threshold."""

    def rank(image):
        return image["rejected"] == (image["defect"] != "good"), abs(image["score"] - threshold)

    return rank


class TestPage:
    def test_it_needs_nothing_from_anywhere(self, run, tmp_path):
        run("part", "--shots", "1")
        page = Page(tmp_path / "evaluation-part" / "report.html")
        linked = {value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "poster")}
        assert linked
        assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in linked)
        assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
        text = "".join(page.texts)
        assert not any(way in text for way in ("http:", "https:", "@import", "url(", "fetch(", "XMLHttp"))
        policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
        assert policy.startswith("default-src 'none'"), "and a browser would see to it"

    def test_names_of_files_and_folders_are_text(self, run, part, tmp_path):
        (part / "test/good/0.png").rename(part / "test/good" / HOSTILE)
        (part / "test/b").rename(part / "test" / '"><script>alert(2)<')
        (part / "ground_truth/b").rename(part / "ground_truth" / '"><script>alert(2)<')
        part.rename(tmp_path / "<b>part & parcel")
        assert run("<b>part & parcel", "--out", "out")[0] == 0
        page = Page(tmp_path / "out" / "report.html")
        assert page.tags.count("script") == 1
        assert "b" in page.tags, "of the page's own"
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        assert f"good/{HOSTILE}" in page.texts
        assert '"><script>alert(2)<' in page.texts
        assert "Evaluation of <b>part & parcel" in page.texts
        assert ("option", "value", 'label:"><script>alert(2)<') in page.attributes
        (board,) = (json.loads(value) for _, name, value in page.attributes if name == "data-board")
        assert '"><script>alert(2)<' in board["types"]

    def test_every_image_has_three_small_pictures_and_what_it_is_sorted_by(self, run, tmp_path):
        run("part")
        page = Page(tmp_path / "evaluation-part" / "report.html")
        pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
        assert len(pictures) == 6 * 3
        for picture in pictures:
            content = base64.b64decode(picture.partition(",")[2], validate=True)
            assert max(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[:2]) == 256
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        shown = [float(value) for _, name, value in page.attributes if name == "data-score"]
        assert shown == [image["score"] for image in sorted(found["images"], key=by_need(found["threshold"]))]
        verdicts = [value for _, name, value in page.attributes if name == "data-verdict"]
        n_wrong = found["false_rejects"]["count"] + found["groups"][0]["escapes"]["count"]
        assert sum(verdict != "" for verdict in verdicts) == n_wrong

    def test_page_of_many_images_shows_those_judged_wrongly_or_nearly_so(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr(report_page, "_MOST_PICTURES", 3)
        run("part")
        (found,) = results(tmp_path / "evaluation-part")["categories"]

        telling = sorted(found["images"], key=by_need(found["threshold"]))
        expected = [image["score"] for image in telling[:3]]
        page = Page(tmp_path / "evaluation-part" / "report.html")
        assert [float(value) for _, name, value in page.attributes if name == "data-score"] == expected
        assert any("3 of 6: those judged wrongly" in text for text in page.texts)

    def test_without_a_threshold_images_of_all_kinds_are_shown(self, run, part, tmp_path, monkeypatch):
        monkeypatch.setattr(report_page, "_MOST_PICTURES", 3)
        for number in (1, 2, 3):
            (part / f"train/good/{number}.png").unlink()
        run("part")
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        page = Page(tmp_path / "evaluation-part" / "report.html")
        shown = {float(value) for _, name, value in page.attributes if name == "data-score"}
        assert shown == {found["images"][place]["score"] for place in (0, 2, 4)}
        assert any("3 of 6: at even steps" in text for text in page.texts)
