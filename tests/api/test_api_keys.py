"""Where keys come from, what each may do, and which keys stop the start without being shown."""

import hmac
import logging
import traceback
from pathlib import Path

import pytest

from backend.api import api_keys
from backend.api.api_keys import ApiKeys
from backend.common.config import Settings
from backend.common.errors import ConfigError

FULL, OTHER, INFER = "full-key-of-the-line", 'other-key+of#the"line', "infer-key-of-the-line"
UNUSABLE = {
    "too short": "only-15-chars-x",
    "too long": "x" * 513,
    "a space": "two words in one key",
    "not ASCII": "llave-de-inspección",
    "a control character": "a-key-with-a-\x07-bell",
}


def right_of(found: api_keys.ApiKey | None) -> str | None:
    return found.right if found else None


def keys_of(file: Path | None = None, **settings: str) -> ApiKeys:
    return ApiKeys.of(Settings(**settings, **({"api_keys_file": file} if file else {})))


def test_without_settings_there_are_no_keys():
    assert not keys_of()
    assert keys_of().find(b"") is None


def test_keys_come_from_the_environment_each_with_its_right():
    configured = keys_of(api_keys=f"{FULL}, {OTHER},", infer_keys=INFER)
    assert configured
    given = (FULL, OTHER, INFER, "", "nobody-knows-this-key", FULL[:-1], FULL + "x", FULL.upper(), f"{FULL}, {OTHER}")
    assert [right_of(configured.find(key.encode())) for key in given] == ["full", "full", "infer", *[None] * 6]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "as Windows editors write it"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_keys_come_from_a_file_one_in_a_line(tmp_path, mark, end):
    file = tmp_path / "keys"
    lines = ["# the line's keys", "", FULL, f"  infer   {INFER} ", "#infer x", "in-the-key-it-counts#"]
    file.write_text(mark + end.join(lines), encoding="utf-8", newline="")
    configured = keys_of(file, api_keys=OTHER)
    found = [configured.find(key.encode()) for key in (FULL, INFER, OTHER, "in-the-key-it-counts#", "infer", "x")]
    assert [right_of(key) for key in found] == ["full", "infer", "full", "full", None, None]


@pytest.mark.parametrize("variable", ["API_KEYS", "INFER_KEYS"])
@pytest.mark.parametrize("key", UNUSABLE.values(), ids=UNUSABLE)
def test_a_key_that_cannot_be_used_stops_the_start_and_is_not_shown(variable, key, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError, match=rf"^{variable}: a key is 16 to 512 characters") as caught:
        keys_of(**{variable.lower(): f"{FULL},{key}"})
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert key not in shown
    assert FULL not in shown


@pytest.mark.parametrize("line", ["infer", f"infer {FULL} {OTHER}", f"fit {FULL}", f"{FULL}, {OTHER}", "x,y" * 9])
def test_a_line_that_cannot_be_used_is_named_by_its_number_and_not_shown(tmp_path, line):
    file = tmp_path / "keys"
    file.write_text(f"# keys\n{INFER}\n{line}\n")
    with pytest.raises(ConfigError, match=r"^API_KEYS_FILE, line 3: ") as caught:
        keys_of(file)
    assert not any(key in str(caught.value) for key in (FULL, OTHER, INFER))


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path):
    for file, reason in {tmp_path / "none": "No such file", tmp_path: "Is a directory"}.items():
        with pytest.raises(ConfigError, match=rf"API_KEYS_FILE='{file}' cannot be read: {reason}"):
            keys_of(file)
    (tmp_path / "bytes").write_bytes(FULL.encode() + b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"API_KEYS_FILE=.* is not UTF-8") as caught:
        keys_of(tmp_path / "bytes")
    assert FULL not in "".join(traceback.format_exception(caught.value))


def test_key_source_without_a_key_stops_the_start(tmp_path):
    """A file or variable for keys that holds no key is a config error; it must not open the service to everybody."""
    (tmp_path / "keys").write_text("# none yet\n\n")
    with pytest.raises(ConfigError, match=r"API_KEYS_FILE=.* holds no key"):
        keys_of(tmp_path / "keys", api_keys=FULL)
    for variable in ("api_keys", "infer_keys"):
        with pytest.raises(ConfigError, match=f"{variable.upper()} holds no key"):
            keys_of(**{variable: " , "})


def test_a_key_has_one_right(tmp_path):
    (tmp_path / "keys").write_text(f"{FULL}\n{FULL}\n")
    assert right_of(keys_of(tmp_path / "keys", api_keys=f"{FULL},{FULL}").find(FULL.encode())) == "full"
    with pytest.raises(ConfigError, match=r"INFER_KEYS: .*both as a full key and as an infer key"):
        keys_of(api_keys=FULL, infer_keys=f"{INFER},{FULL}")


@pytest.mark.parametrize("given", [FULL, INFER, "nobody-knows-this-key", "", "x" * 60_000])
def test_what_is_given_is_compared_with_every_key_in_constant_time(monkeypatch, given):
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return hmac.compare_digest(left, right)

    configured = keys_of(api_keys=f"{FULL},{OTHER}", infer_keys=INFER)
    monkeypatch.setattr(api_keys, "hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))
    configured.find(given.encode())
    assert compared == [(32, 32)] * 3


def test_keys_are_kept_as_hashes_and_never_shown():
    configured = keys_of(api_keys=FULL)
    found = configured.find(FULL.encode())
    assert found is not None
    shown = repr(configured) + repr(vars(configured)) + repr(found)
    assert FULL not in shown
    assert found.digest.hex() not in shown
