"""Sentences for people: blanked, to compare changes of wording only; names, numbers and options stay."""

import re

SENTENCE = "<sentence>"
_MEMBERS = frozenset({"description", "error", "hint", "reason", "summary", "text", "warning", "why"})
_EXAMPLES = "examples"
_AROUND = "().,;:"
_FEWEST_BLANKS = 8
# Three words or more. What has digits, underscores, slashes, dashes or quotes, or ends with a colon, is a name.
_WORD = r"(?:ROIs?|[A-Za-z][a-z]*(?:['’][a-z]+)?)"
_WORDS = re.compile(rf"(?<![\w/.'-]){_WORD}(?:['.,;)]* \(?{_WORD}){{2,}}(?![\w/'-])[.,;)]*")
_ENTRY = re.compile(r"(?P<names> {2,6}\S+(?: \S+)*)(?: {2,}.*)?")
_TITLE = re.compile("[a-z ]+:")


def is_sentence(member: str, text: str) -> bool:
    """Whether a text in JSON is written for people, by the name of its member; of examples, those of many words.

    >>> is_sentence("error", "x"), is_sentence("code", "x"), is_sentence("examples", "1 of 2 is low: " + "a b " * 4)
    (True, False, True)
    """
    return member in _MEMBERS or (member == _EXAMPLES and text.count(" ") >= _FEWEST_BLANKS)


def without_sentences(text: str) -> str:
    """A text in which three words or more are one placeholder; of the rest of their line, names and numbers are left.

    >>> without_sentences("fit: the following arguments are required: ROLE, --mm-per-px, 0.2 mm")
    '<sentence> fit: ROLE --mm-per-px 0.2'
    >>> without_sentences("0.2 mm")
    '0.2 mm'
    """
    return "\n".join(map(_without_sentences, text.split("\n")))


def _without_sentences(line: str) -> str:
    blanked = _WORDS.sub(f" {SENTENCE} ", line)
    if blanked == line:
        return line
    # One sentence has its names and numbers at other places than the next: "1 or more", "at least 1".
    names = [token if _is_title(token) else token.strip(_AROUND) for token in blanked.split() if SENTENCE not in token]
    return " ".join([SENTENCE, *(name for name in names if name and not re.fullmatch(_WORD, name))])


def _is_title(token: str) -> bool:
    return re.fullmatch(f"{_WORD}:", token) is not None


def help_without_sentences(text: str) -> str:
    r"""What a parser prints for ``--help``: usage, titles, examples, and the names of every argument.

    >>> print(help_without_sentences("usage: x [-h]\n\nAll about x.\n\noptions:\n  -h, --help  show this help\n"))
    usage: x [-h]
    <sentence>
    options:
      -h, --help
    """
    usage, _, rest = text.partition("\n\n")
    lines = [usage]
    for line in filter(None, rest.splitlines()):
        entry = _ENTRY.fullmatch(line)
        if entry:
            lines.append(entry["names"])
        elif _TITLE.fullmatch(line):
            lines.append(line)
        elif not line.startswith(" ") and lines[-1] != SENTENCE:
            lines.append(SENTENCE)
    return "\n".join(lines)
