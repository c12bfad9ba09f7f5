"""What the console loads is used: exports, methods, and classes of the styles."""

import fnmatch
import posixpath
import re
from pathlib import Path

from backend.web import console_files

SCRIPTS = {path: content.decode() for path, content in console_files().items() if path.endswith(".js")}
CODE = {
    path: re.sub(r"/\*\*.*?\*/", "", text, flags=re.DOTALL)
    for path, text in SCRIPTS.items()
    if not path.startswith("texts/")
}
"""Every script but the texts, without what it says of types."""
STYLES = {
    path: re.sub(r"/\*.*?\*/", "", content.decode(), flags=re.DOTALL)
    for path, content in console_files().items()
    if path.endswith(".css")
}
CALLED_BY_THE_BROWSER = {"constructor", "connectedCallback", "disconnectedCallback"}
PARTS_OF_THE_CONSOLE = Path(__file__).parents[1] / "console"


def exported():
    """(file, name) of all that a script exports by name."""
    for path, text in CODE.items():
        for name in re.findall(r"^export (?:async )?(?:function\*?|class|const|let) (\w+)", text, re.MULTILINE):
            yield path, name


def imported():
    """(file, name) of all that another script imports, and that the page calls in the worker by its name."""
    for path, text in CODE.items():
        named = re.findall(r'import \{([^}]*)\} from "(\.[^"]+)"', text)
        named += re.findall(r'\{([^{}]*)\} = await import\("(\.[^"]+)"\)', text)
        for names, file in named:
            for name in names.split(","):
                yield posixpath.normpath(posixpath.join(posixpath.dirname(path), file)), name.split(" as ")[0].strip()
    for name in re.findall(r'\bcall\("(\w+)"', CODE["pixels/picture.js"]):
        yield "pixels/cutter.js", name


def words():
    """Every word of a string in a script; `*` stands for what is put in."""
    for text in CODE.values():
        for quoted, template in re.findall(r'"([^"\n]*)"|`([^`]*)`', text):
            yield from re.split(r"[^\w*-]+", re.sub(r"\$\{[^{}]*\}", "*", template))
            yield from re.findall(r"[\w-]+", quoted or template)


def test_every_export_is_imported_by_another_script():
    assert len(set(exported())) > 150
    assert set(exported()) - set(imported()) == set()


def test_every_method_is_called():
    named = {
        name
        for text in CODE.values()
        for name in re.findall(r"^  (?:static )?(?:async )?(?:[gs]et )?(\w+)\([^()]*\) \{$", text, re.MULTILINE)
    }
    called = {name for text in CODE.values() for name in re.findall(r"\.(\w+)\b", text)}
    taken_apart = {
        name
        for text in CODE.values()
        for names in re.findall(r"\{([^{}]*)\}", text)
        for name in re.findall(r"\w+", names)
    }
    assert len(named) > 200
    assert named - called - taken_apart - CALLED_BY_THE_BROWSER == set()


def test_every_class_of_the_styles_is_one_of_an_element():
    selectors = " ".join(re.sub(r"\{[^{}]*\}", " ", text) for text in STYLES.values())
    styled = set(re.findall(r"\.([a-z][\w-]*)", selectors))
    known = {word for word in words() if "*" not in word or len(word.strip("*-")) > 3}
    assert len(styled) > 100
    assert {name for name in styled if not any(fnmatch.fnmatchcase(name, word) for word in known)} == set()


def test_every_class_of_an_element_has_a_style_or_is_looked_for():
    given = {
        name for text in CODE.values() for tag in re.findall(r'\bh\(\s*"([^"]*)"', text) for name in tag.split(".")[1:]
    }
    tests = "".join(file.read_text(encoding="utf-8") for file in PARTS_OF_THE_CONSOLE.glob("*.py"))
    code = "".join(re.sub(r'\bh\(\s*"[^"]*"', "", text) for text in CODE.values())
    looked_for = set(re.findall(r"\.([a-z][\w-]*)", "".join(STYLES.values()) + code + tests))
    assert len(given) > 100
    assert given - looked_for == set()
