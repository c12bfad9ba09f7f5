"""compose.yaml, the systemd unit, the image and nginx's example agree with the service and with one another."""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.common.config import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
UNIT = ROOT / "systemd" / "roi-anomaly.service"
HOST_NAME = "parts.factory"
SETTINGS = {name.upper() for name in Settings.model_fields} | {"FORWARDED_ALLOW_IPS"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml as it is, its variables unset."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_compose_sets_settings_that_exist_and_serves_the_name_of_the_host(compose):
    environment = compose["services"]["service"]["environment"]
    assert environment.keys() <= SETTINGS
    hosts = environment["ALLOWED_HOSTS"]
    assert hosts.startswith("${HOST_NAME:?"), "nothing starts without a name"
    assert hosts.endswith("},127.0.0.1"), "the health check comes to it"


def test_compose_gives_the_service_its_keys_as_a_secret_that_stays_outside(compose):
    service = compose["services"]["service"]
    assert service["secrets"] == ["api_keys"]
    assert service["environment"]["API_KEYS_FILE"] == "/run/secrets/api_keys"
    file = compose["secrets"]["api_keys"]["file"]
    assert file == "./secrets/keys"
    assert f"> {file.removeprefix('./')}" in GUIDE
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines(), "no key is committed"
    assert not admitted("secrets/keys"), "nor copied into the image"


def test_compose_lets_nobody_past_nginx(compose):
    services = compose["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    addresses = {name: service["networks"]["inside"]["ipv4_address"] for name, service in services.items()}
    assert services["service"]["environment"]["FORWARDED_ALLOW_IPS"] == addresses["nginx"]
    assert len(set(addresses.values())) == 2
    assert services["service"]["cap_drop"] == ["ALL"]


def test_compose_keeps_and_checks_what_the_image_keeps_and_checks(compose):
    service = compose["services"]["service"]
    folders = dict(mount.split(":") for mount in service["volumes"])
    assert folders.keys() == compose["volumes"].keys()
    kept = re.search(r"^VOLUME (.+)$", DOCKERFILE, re.MULTILINE)
    assert kept is not None
    assert sorted(folders.values()) == sorted(yaml.safe_load(kept[1]))
    asked = re.search(r"^    CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert asked is not None
    assert service["healthcheck"]["test"] == ["CMD", *yaml.safe_load(asked[1])]


def test_compose_adapts_the_nginx_example_to_its_own_addresses(compose, tmp_path):
    shell, option, line = compose["services"]["nginx"]["command"]
    assert (shell, option) == ("sh", "-c")
    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["nginx"]["volumes"])
    (inside,) = (there for here, there in mounts.items() if here == "./docker/nginx.conf")
    adapt = line.split(" && ")[0].replace("$$", "$").replace(inside, str(ROOT / "docker" / "nginx.conf"))
    adapt = adapt.replace("/etc/nginx/conf.d/default.conf", str(tmp_path / "site.conf"))
    subprocess.run(["sh", "-c", adapt], env={**os.environ, "HOST_NAME": HOST_NAME}, check=True)
    site = (tmp_path / "site.conf").read_text()
    address = compose["services"]["service"]["networks"]["inside"]["ipv4_address"]
    assert re.findall(r"^ +server ([^ ;]+);", site, re.MULTILINE) == [f"{address}:8000"]
    assert re.findall(r"server_name ([^;]+);", site) == [HOST_NAME] * 2
    certificates = set(re.findall(r"ssl_certificate(?:_key)? ([^;]+);", site))
    assert {str(Path(path).parent) for path in certificates} == {mounts["./secrets/tls"]}
    assert all(f"secrets/tls/{Path(path).name}" in GUIDE for path in certificates)


@pytest.mark.slow
def test_docker_compose_itself_reads_the_file():
    command = next(filter(None, (_works(["docker", "compose"]), _works(["docker-compose"]))), None)
    if command is None:
        pytest.skip("no docker compose here")
    configure = [*command, "-f", str(ROOT / "compose.yaml"), "config"]
    clean = {name: value for name, value in os.environ.items() if name != "HOST_NAME"}
    nameless = subprocess.run(configure, env=clean, capture_output=True, text=True)
    assert nameless.returncode != 0
    assert "set HOST_NAME" in nameless.stderr
    done = subprocess.run(configure, env={**clean, "HOST_NAME": HOST_NAME}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = yaml.safe_load(done.stdout)["services"]["service"]["environment"]
    assert environment["ALLOWED_HOSTS"] == f"{HOST_NAME},127.0.0.1"


def _works(command: list[str]) -> list[str] | None:
    if shutil.which(command[0]) is None:
        return None
    return command if subprocess.run([*command, "version"], capture_output=True).returncode == 0 else None


def admitted(path: str) -> bool:
    """Whether .dockerignore lets a file into the image: the last line that matches it, or a folder of it, says."""
    inside = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        pattern = line.removeprefix("!").removeprefix("**/")
        if any(fnmatch(str(part), pattern) for part in (Path(path), *Path(path).parents) if part.parts):
            inside = line.startswith("!")
    return inside


def test_all_that_the_image_copies_is_there_and_let_in():
    copied = [name for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    assert {"pyproject.toml", "README.md", "backend/"} <= set(copied), "what installs the command"
    assert [name for name in copied if not (ROOT / name).exists() or not admitted(name.rstrip("/"))] == []
    assert not admitted("tests/conftest.py")


def test_the_user_of_the_image_is_the_one_that_the_guide_names():
    uid = re.search(r"useradd .*--uid (\d+) (\w+)", DOCKERFILE)
    assert uid is not None
    assert f"USER {uid[2]}\n" in DOCKERFILE
    assert f"`{uid[2]}`, with the number {uid[1]}" in GUIDE
    owners = set(re.findall(r"chown (\S+)|install -d -o (\d+)", GUIDE))
    assert {owner for pair in owners for owner in pair if owner} == {uid[1]}


def directives() -> dict[str, list[str]]:
    """Every directive of the unit, with its values in their order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_the_unit_runs_the_command_with_settings_that_exist_and_no_root():
    unit = directives()
    environment = dict(pair.split("=", 1) for line in unit["Environment"] for pair in line.split())
    assert environment.keys() <= SETTINGS
    assert (environment["HOST"], "127.0.0.1" in environment["ALLOWED_HOSTS"].split(",")) == ("127.0.0.1", True)
    script = re.search(r"^\[project.scripts\]\n(\S+) = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert script is not None
    assert unit["ExecStart"] == [f"{unit['WorkingDirectory'][0]}/.venv/bin/{script[1]} serve"]
    assert unit["User"] == ["roi-anomaly"]
    assert f"useradd --system --home-dir /var/lib/roi-anomaly --shell /usr/sbin/nologin {unit['User'][0]}" in GUIDE


def test_the_unit_can_write_its_models_and_weights_and_nothing_else():
    unit = directives()
    environment = dict(pair.split("=", 1) for line in unit["Environment"] for pair in line.split())
    assert environment["MODELS_DIR"] == f"/var/lib/{unit['StateDirectory'][0]}"
    assert environment["WEIGHTS_CACHE"] == f"/var/cache/{unit['CacheDirectory'][0]}"
    assert unit["ProtectSystem"] == ["strict"]
    assert "ReadWritePaths" not in unit


def test_the_unit_waits_for_work_in_flight_as_the_guide_says():
    unit = directives()
    assert unit["TimeoutStopSec"] == ["10min"]
    assert "`TimeoutStopSec` is ten minutes" in GUIDE
    assert unit["KillMode"] == ["mixed"], "one SIGTERM, to the service alone"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize(
    ("mistake", "named"),
    [("", []), ("Restart=sometimes\n", ["sometimes"]), ("TimeoutStopSecs=10min\n", ["TimeoutStopSecs"])],
    ids=["as it is", "value", "name"],
)
def test_systemd_takes_the_unit_as_it_is_and_would_name_a_mistake(tmp_path, mistake, named):
    text = UNIT.read_text(encoding="utf-8")
    command = directives()["ExecStart"][0]
    assert text.count(command) == 1
    copy = tmp_path / UNIT.name  # systemd looks whether the program is there
    copy.write_text(text.replace(command, f"{sys.executable} serve").replace("[Install]", f"{mistake}[Install]"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if UNIT.name in line]  # other lines are about the machine
    assert len(told) == len(named), told
    assert all(word in line for word, line in zip(named, told, strict=True))


def test_replicas_refuse_in_the_words_of_the_service_and_before_ray_does():
    served = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text(encoding="utf-8"))
    (application,) = served["applications"]
    (deployment,) = application["deployments"]
    defaults = Settings.model_construct()
    assert deployment["max_ongoing_requests"] > 2 * (defaults.max_queue + defaults.max_fits)
    assert application["import_path"] == "backend.cluster.serving:application"
    assert application["route_prefix"] == "/"
    assert served["http_options"] == {"host": "127.0.0.1", "port": defaults.port}


def test_kubernetes_deploys_what_one_machine_deploys_closed():
    local = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text(encoding="utf-8"))
    service, policy = yaml.safe_load_all((ROOT / "deploy" / "rayservice.yaml").read_text(encoding="utf-8"))
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    (here,), (there,) = local["applications"], served["applications"]
    assert there["import_path"] == here["import_path"]
    for name in ("name", "max_ongoing_requests", "graceful_shutdown_timeout_s", "health_check_timeout_s"):
        assert there["deployments"][0][name] == here["deployments"][0][name]
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray[serve]=={cluster['rayVersion']}" in (ROOT / "requirements" / "ray.txt").read_text(encoding="utf-8")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
        ours = {name for name in environment if not name.startswith("RAY_")}
        assert ours <= SETTINGS
    assert cluster["workerGroupSpecs"][0]["template"]["spec"]["terminationGracePeriodSeconds"] > 600


def test_autoscaled_replicas_have_the_store_and_settings_that_exist():
    deployment, scaler = yaml.safe_load_all((ROOT / "deploy" / "hpa.yaml").read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = {entry["name"] for entry in container["env"]}
    assert "MODELS_URL" in names
    assert names <= SETTINGS
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
