"""The catalogues of the console say the same in each language, and no script says anything by itself."""

import re
from collections.abc import Iterator

import pytest

from backend.web import console_files

FILES = {path: content.decode() for path, content in console_files().items()}
LANGUAGES = sorted(found[1] for path in FILES if (found := re.fullmatch(r"texts/(\w+)\.js", path)))
CODE = {path: text for path, text in FILES.items() if path.endswith(".js") and not path.startswith("texts/")}
FORMS = {"en": {"one", "other"}, "es": {"one", "many", "other"}}
"""The categories of a number in each language, as Unicode has them."""

_OF_MISTAKES = {
    "a guard says what it asks for",
    "a guard says what it learnt",
    "no ROI",
    "no ROI is drawn",
    "no text *",
    "the archive is full",
    "the layout was changed elsewhere",
    "there is nothing to ask about",
}
"""Errors that people are not shown: a mistake in a script, or caught by their class."""
_OF_PROGRAMS = {
    " Nothing was stored (dry_run).",
    "#/live?*",
    "Inspection *",
    "draft of *",
    "fit of *",
    "input, select, textarea, dialog *",
    "live camera",
    "live source",
    "name of */*",
}
"""Names under which something is kept, selectors, ids, and what is cut off from a text of the service."""
_CLASSES = re.compile(r"[a-z]+(?:-[a-z]+)+(?: [a-z]+(?:-[a-z]+)+)*")
_NAMES = re.compile(r"[A-Z][a-z]+(?:-[A-Z][a-z]+)*")
_WORDS_OF_PROGRAMS = {
    *("Circle", "Rectangle", "Annulus", "Inspection"),  # of the desktop GUI's files
    *("Content-Type", "If-Match", "If-None-Match", "Retry-After"),
    *("End", "Enter", "Escape", "Home"),  # keys
    *("English", "Español"),  # each language by its own name
}
_ENDS_BEFORE_REGEX = re.compile(r"(?:[(,=:\[!&|?{};>]|return)\s*$")


def catalogue(language: str) -> dict[str, dict[str, str]]:
    """Every text by its key: its forms by their names, or the one form as ``""``."""
    found: dict[str, dict[str, str]] = {}
    entry = re.compile(r'^  "?([\w.]+)"?: (?:"((?:[^"\\]|\\.)*)"|\{([^}{]*(?:\{\w+\}[^}{]*)*)\}),$', re.MULTILINE)
    for key, text, forms in entry.findall(FILES[f"texts/{language}.js"] + FILES[f"texts/later/{language}.js"]):
        found[key] = dict(re.findall(r'(\w+): "((?:[^"\\]|\\.)*)"', forms)) if forms else {"": text}
    return found


def names(text: str) -> set[str]:
    """What is put into a text."""
    return set(re.findall(r"\{(\w+)\}", text))


def literals(text: str) -> Iterator[str]:
    """The strings of a script; ``*`` stands for what is put into a template."""
    at, depths, begun = 0, [0], [""]
    while at < len(text):
        if depths[-1] < 0:  # inside a template
            end = re.compile(r"\\.|`|\$\{|[^\\`$]+|\$", re.DOTALL).match(text, at)
            assert end is not None
            at = end.end()
            if end[0] == "`":
                depths.pop()
                yield begun.pop()
            elif end[0] == "${":
                begun[-1] += "*"
                depths.append(1)
                begun.append("")
            else:
                begun[-1] += end[0]
            continue
        found = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|[`{}]|/', re.DOTALL).search(text, at)
        if found is None:
            break
        at = found.end()
        if found[0] == "`":
            depths.append(-1)
            begun.append("")
        elif found[0] == "{":
            depths[-1] += 1
        elif found[0] == "}":
            depths[-1] -= 1
            if depths[-1] == 0 and len(depths) > 1:
                depths.pop()
                begun.pop()
        elif found[0] == "/":
            if _ENDS_BEFORE_REGEX.search(text[max(0, found.start() - 20) : found.start()]):
                whole = re.compile(r"(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/").match(text, at)
                at = whole.end() if whole else at
        elif found[0].startswith('"'):
            yield found[0][1:-1]


def is_said(literal: str) -> bool:
    """Whether a string looks like words for people: two words, or one with a capital."""
    if literal in _OF_MISTAKES | _OF_PROGRAMS | _WORDS_OF_PROGRAMS or _CLASSES.fullmatch(literal):
        return False
    return bool(re.search(r"[^\W\d_]{2,}[,:;.!?…)]? +[(“]?[^\W\d_]{2,}", literal) or _NAMES.fullmatch(literal))


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_each_language_says_the_same_with_the_same_names_put_in(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert len(english) > 500
    assert set(other) == set(english)
    kinds = {key: ("" in forms) for key, forms in other.items()}
    assert {key for key, is_one in kinds.items() if is_one != ("" in english[key])} == set()
    differ = {
        f"{key} {form}"
        for key, forms in other.items()
        for form, text in forms.items()
        if names(text) != names(english[key].get(form) or english[key].get("other", ""))
    }
    assert differ == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_with_a_number_has_the_forms_of_its_language(language: str) -> None:
    counted = {key: forms for key, forms in catalogue(language).items() if "" not in forms}
    assert len(counted) > 40
    assert {key for key, forms in counted.items() if not {"one", "other"} <= set(forms) <= FORMS[language]} == set()


def test_in_spanish_millions_of_a_thing_stand_with_de() -> None:
    """A million is a noun: 2 imágenes, but 1000000 de imágenes."""
    counted = {key: forms for key, forms in catalogue("es").items() if "other" in forms}
    of_things = {
        key for key, forms in counted.items() if re.search(r"\{(?:n|all)\} (?!de )[^\W\d_]{2,}", forms["other"])
    }
    assert len(of_things) > 25
    assert {key for key in of_things if not re.search(r"\{(?:n|all)\} de ", counted[key].get("many", ""))} == set()


def test_no_script_holds_a_text_for_people() -> None:
    found = {path: [text for text in literals(code) if is_said(text)] for path, code in CODE.items()}
    assert sum(len(list(literals(code))) for code in CODE.values()) > 3000
    assert {path: said for path, said in found.items() if said} == {}


def test_no_attribute_and_no_element_is_given_a_text_in_place() -> None:
    in_place = re.compile(
        r'(?:\b(?:title|placeholder|alt)|"aria-(?:label|description|valuetext|roledescription)"): ["`][^"`$]*[^\W\d_]'
        r'|\.(?:textContent|innerText|title|ariaLabel|placeholder) = ["`][^"`$]*[^\W\d_]'
        r'|\.say\("\w+", ["`]'
        r'|\b[hs]\("[^"]*", \{[^{}]*\}, ["`][^"`$]*[^\W\d_]{2}'
    )
    assert {
        path: found
        for path, code in CODE.items()
        if (found := in_place.findall(re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)))
    } == {}
    styles = "".join(text for path, text in FILES.items() if path.endswith(".css"))
    assert re.findall(r'\bcontent: "[^"]*[^\W\d_]', styles) == []


def test_all_lists_of_what_is_no_text_are_needed() -> None:
    all_literals = {text for code in CODE.values() for text in literals(code)}
    assert (_OF_MISTAKES | _OF_PROGRAMS | _WORDS_OF_PROGRAMS) - all_literals == set()


def test_the_page_itself_says_its_name_and_needs_in_each_language() -> None:
    page = FILES["index.html"]
    assert re.findall(r"<title>(.*)</title>", page) == list(catalogue("en")["app.name"].values())
    noscript = page.partition("<noscript>")[2].partition("</noscript>")[0]
    said = re.findall(r'<p(?: lang="(\w+)")?>(.*)</p>', noscript)
    assert sorted(language or "en" for language, _ in said) == LANGUAGES
    without = re.sub(r"<title>.*</title>|<noscript>.*</noscript>|<[^>]*>", "", page, flags=re.DOTALL)
    assert without.split() == []
    assert re.findall(r'(?:title|alt|aria-label|placeholder)="', page) == []


def test_numbers_for_people_are_written_by_the_catalogue() -> None:
    """By `fixed` or `written`, which know the decimal comma; the others are for the drawing or for programs."""
    for_programs = re.compile(r"Number\(|setAttribute\(|const point = ")
    found = {
        f"{path}: {line.strip()}"
        for path, code in CODE.items()
        for line in code.splitlines()
        if path != "texts.js" and ".toFixed(" in line and not for_programs.search(line)
    }
    found |= {path for path, code in CODE.items() if path != "texts.js" and ".toLocale" in code}
    assert found == set()
