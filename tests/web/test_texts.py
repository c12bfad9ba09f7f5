"""The catalogue of the console: what is asked for is there, nothing else is, and nothing is said twice."""

import re
from collections import Counter

from backend.web import console_files

CATALOGUE = ("texts/en.js", "texts/later/en.js")
"""The texts that every screen has, and those of some alone."""
LATER = "texts-later.js"
SCRIPTS = {path: content.decode() for path, content in console_files().items() if path.endswith(".js")}
CODE = "".join(text for path, text in SCRIPTS.items() if not path.startswith("texts/"))
SAID_TWICE = {"Inspect"}
"""The name of a screen, and what is done there: two words in other languages."""


def texts(*files):
    """Every text of the catalogue, or of some files of it, by its key: its one form, or two of them."""
    return {key: forms for file in files or CATALOGUE for key, forms in texts_of(SCRIPTS[file]).items()}


def texts_of(text):
    """Those of one file."""
    keys = [*re.finditer(r'^  "?([\w.]+)"?: (?=["{])', text, re.MULTILINE)]
    ends = [key.start() for key in keys[1:]] + [len(text)]
    return {
        key[1]: re.findall(r'"((?:[^"\\]|\\.)*)"', text[key.end() : end]) for key, end in zip(keys, ends, strict=True)
    }


def asked(code=CODE):
    """The keys that scripts name in full."""
    code = re.sub(r'\bh\(\s*"[^"]*"', "", code)  # elements and their classes
    groups = {key.split(".")[0] for key in texts()}
    dotted = {text for text in re.findall(r'"([a-z]+(?:\.[a-z_]+)+)"', code) if text.split(".")[0] in groups}
    return dotted | set(re.findall(r'\bt\("([\w.]+)"', code))


def stems(code=CODE):
    """What stands before the last word of a key where a script puts that word in, as in ``t(`card.next.${step}`)``."""
    return set(re.findall(r"\bt\(`([\w.]+)\.\$\{", code))


def test_every_text_that_is_asked_for_is_in_the_catalogue():
    assert len(asked()) > 350
    assert asked() - set(texts()) == set()
    assert stems() - {key.rpartition(".")[0] for key in texts()} == set()


def test_every_text_of_the_catalogue_is_asked_for():
    """In full, or below a stem by a last word that the scripts know."""
    known = set(re.findall(r"\w+", CODE))
    begun = stems()
    rest = {key.rpartition(".")[::2] for key in set(texts()) - asked()}
    assert len(rest) > 50
    assert {(stem, word) for stem, word in rest if stem not in begun or word not in known} == set()


def test_no_text_is_said_twice():
    said = Counter(" | ".join(forms) for forms in texts().values())
    assert len(said) > 450
    assert {text for text, count in said.items() if count > 1} == SAID_TWICE


def test_a_text_with_two_forms_has_two():
    assert {len(forms) for forms in texts().values()} == {1, 2}
    assert {key for key, forms in texts().items() if len(forms) == 2 and forms[0] == forms[1]} == set()


def test_no_text_stands_in_two_files():
    first, later = (set(texts(file)) for file in CATALOGUE)
    assert len(later) > 150
    assert first & later == set()


def test_a_script_that_asks_for_a_later_text_loads_the_later_texts():
    later = set(texts(CATALOGUE[1]))
    begun = {key.rpartition(".")[0] for key in later} - {key.rpartition(".")[0] for key in texts(CATALOGUE[0])}
    scripts = {path: text for path, text in SCRIPTS.items() if not path.startswith("texts/")}
    asking = {path for path, text in scripts.items() if asked(text) & later or stems(text) & begun}
    loading = {path for path, text in scripts.items() if re.search(rf'^import "\.[./]*/{LATER}";$', text, re.MULTILINE)}
    assert "screens/live.js" in asking
    assert asking == loading
