"""``inspect`` says the same in the terminal and on its page, in words of its own."""

import html
import json
import re

ALL = ("inspect", "widget/good", "parts", "--ng", "bad")


def page_of(folder):
    return html.unescape((folder / "inspection-widget" / "report.html").read_text(encoding="utf-8"))


def test_the_page_calls_images_and_verdicts_as_the_command_does(run, folders):
    (folders / "parts" / "2.png").unlink()
    status, _, err = run(*ALL)
    assert status == 0, err
    shown = page_of(folders)
    assert re.findall(r'<text class="lane"[^>]*>([^<]*)', shown) == [
        "10 good images, each by a memory bank of the others",
        "3 bad images",
        "1 part",
    ]
    labels = dict(re.findall(r"<span>([^<]*)</span><b data-count=\"(\w+)\"", shown))
    assert labels == {
        "bad images that are OK": "defective",
        "parts NG": "part",
        "good images at or above": "train",
    }
    assert sorted(re.findall(r"data-decision>([^<]*)", shown)) == ["NG", "NG", "NG", "OK"]
    assert "false rejects" not in shown, "no good image has a picture there"
    words = json.loads(re.search(r'data-board="(.*)">', shown)[1])["words"]
    assert (words["ng"]["of_one"], words["ok"]["of_several"]) == ("is NG", "are OK")
