"""Tests docker/nginx.conf: a real nginx with TLS in front of the real service. ``make soak-nginx``.

If Chromium is installed, the console is also opened in it.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from playwright.sync_api import expect, sync_playwright

from backend.web import console_files
from harness.browser import CHROMIUM, installed
from harness.server import Server, free_port, serving

_EXAMPLE = Path(__file__).parents[1] / "docker" / "nginx.conf"
_KEY = "a-key-for-this-proof"
_ROI = {"role_id": "Soak", "roi_id": "Nginx", "mm_per_px": "0.2"}
_INSTALL = "apt-get install nginx-light openssl"
_START_S = 10
_PATIENCE_MS = 60_000
_N_PICTURES = 200
_CONNECTIONS = 6  # that browsers open to one server
_BELOW = "/line-1"
# What a plant may add to the example, to have the service below a path.
_BELOW_A_PATH = (
    f"    location {_BELOW}/ {{\n        proxy_pass http://roi_anomaly/;\n    }}\n\n    location = /health {{"
)
_PAGE = {"Accept": "text/html"}


class ProofError(Exception):
    """Something does not hold."""


def prove(holds: bool, sentence: str, seen: object = "") -> None:
    """Print what holds.

    Raises:
        ProofError: it does not.
    """
    if not holds:
        raise ProofError(f"not so: {sentence}; {seen}")
    print(f"  {sentence}", flush=True)


def program(name: str) -> str:
    """Where a program is; daemons lie where not every user looks."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        sys.exit(f"{name} is not installed: {_INSTALL}")
    return found


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate of localhost and its key, beside it."""
    certificate = folder / "inspection.crt"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    subprocess.run([program("openssl"), *new, *subject, *files], check=True, capture_output=True)
    return certificate


def adapted(certificate: Path, plain_port: int, tls_port: int, service_port: int) -> str:
    """The example on ports that are free here, with this certificate; all else as it is."""
    text = _EXAMPLE.read_text()
    for example, here in {
        "listen 80;": f"listen 127.0.0.1:{plain_port};",
        "listen 443 ssl;": f"listen 127.0.0.1:{tls_port} ssl;",
        "listen [::]:80;": "",
        "listen [::]:443 ssl;": "",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{service_port};",
        "/etc/nginx/tls/inspection.crt": str(certificate),
        "/etc/nginx/tls/inspection.key": str(certificate.with_suffix(".key")),
    }.items():
        prove(text.count(example) == 1, f"the example says {example}")
        text = text.replace(example, here)
    return text.replace("    location = /health {", _BELOW_A_PATH, 1)


def listens(port: int) -> bool:
    """Whether something on this machine listens at `port`."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def nginx(folder: Path, site: str, port: int) -> Iterator[None]:
    """A real nginx with nothing but this site, until the end."""
    (folder / "site.conf").write_text(site)
    temporary = "\n".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {folder / 'nginx.pid'}; error_log {folder / 'error.log'} info;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}\ninclude {folder / 'site.conf'};\n}}\n"
    )
    command = [program("nginx"), "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + _START_S
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ProofError(f"nginx does not start: {(folder / 'error.log').read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=_START_S)


def error_of(status: int, content: bytes) -> str:
    """The error of a reply in the contract's shape."""
    reply = json.loads(content)
    prove(reply.keys() == {"error", "trace", "code"}, f"{status} has the shape of every error", reply)
    return str(reply["error"])


def announce(context: ssl.SSLContext, port: int, n_bytes: int, key: str | None) -> tuple[int, float, str]:
    """Status, seconds until it, and error of an upload of which hardly anything is sent."""
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    connection.putrequest("POST", "/fit_ok")
    connection.putheader("Content-Length", str(n_bytes))
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    if key is not None:
        connection.putheader("X-API-Key", key)
    start = time.monotonic()
    connection.endheaders(b"--x\r\n")
    response = connection.getresponse()
    seconds = time.monotonic() - start
    error = error_of(response.status, response.read())
    connection.close()
    return response.status, seconds, error


def check(client: httpx.Client, context: ssl.SSLContext, plain_port: int, tls_port: int, server: Server) -> None:
    """Prove what the example promises."""
    moved = httpx.get(f"http://localhost:{plain_port}/health", trust_env=False)
    prove(moved.status_code == 308 and moved.headers["location"].startswith("https://"), "HTTP is sent on to HTTPS")
    with context.wrap_socket(socket.create_connection(("localhost", tls_port)), server_hostname="localhost") as secure:
        prove(secure.version() in ("TLSv1.2", "TLSv1.3"), f"TLS works ({secure.version()}, the certificate verified)")

    anonymous = client.get("/health", headers={"X-Request-Id": "through-nginx"})
    prove(anonymous.status_code == 200 and "weights_sha256" not in anonymous.json(), "/health is open and says little")
    prove(anonymous.headers["x-request-id"] == "through-nginx", "the client's request id goes through and comes back")
    prove("strict-transport-security" in anonymous.headers, "browsers are told to stay with TLS")
    refused = client.get("/runs")
    prove(refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer", "no key: 401")
    error_of(401, refused.content)

    key = {"X-API-Key": _KEY, "X-Recipe-Id": "Line 1", "X-Request-Id": "fit-through-nginx"}
    noise = np.random.default_rng(0).integers(0, 256, (4, 1200, 1200, 3), np.uint8)
    pngs = [cv2.imencode(".png", image)[1].tobytes() for image in noise]
    files = [("images", ("ok.png", png, "image/png")) for png in pngs]
    fit = client.post("/fit_ok", data=_ROI, files=files, headers=key)
    prove(fit.status_code == 200 and fit.json()["recipe_id"] == "line 1", "a fit goes through, its recipe with it", fit)
    of_fit = [line for line in server.log() if line.get("request_id") == "fit-through-nginx"]
    logged = [line for line in of_fit if line["event"] == "request"]  # a fit that takes long logs its progress too
    prove(len(logged) == 1 and logged[0]["endpoint"] == "/fit_ok", "the service logs the client's request id", logged)
    infer = client.post("/infer", data=_ROI, files={"image": ("part.png", pngs[0], "image/png")}, headers=key)
    prove(infer.status_code == 200 and infer.json()["score"] >= 0, "so does an inference", infer)
    for idle_s in (3.9, 4.9, 5.1):
        time.sleep(idle_s)
        again = client.get("/state", params={"role_id": "Soak", "roi_id": "Nginx"}, headers=key)
        prove(again.status_code == 200, f"after {idle_s} s without requests the next one goes through", again)

    status, seconds, error = announce(context, tls_port, (2048 << 20) + 1, _KEY)
    prove(
        status == 413 and seconds < 1 and "client_max_body_size" in error,
        f"a body over the limit: 413, after {seconds * 1000:.0f} ms",
    )
    status, seconds, error = announce(context, tls_port, 2048 << 20, None)
    prove(
        status == 401 and seconds < 1 and "X-API-Key" in error,
        f"2 GiB without a key: 401, after {seconds * 1000:.0f} ms and hardly a byte",
    )

    swollen = client.get("/runs", headers={"X-Recipe-Id": "R" * 40_000})
    prove(swollen.status_code == 400 and "head" in error_of(400, swollen.content), "a head that is too large: 400")

    replies = [client.get("/runs", headers={"X-API-Key": _KEY, "X-Request-Id": "busy"}) for _ in range(200)]
    statuses = [reply.status_code for reply in replies]
    prove(set(statuses) == {200, 429}, f"200 requests at once: {statuses.count(429)} are 429, the others 200", statuses)
    limited = replies[statuses.index(429)]
    prove(limited.headers["retry-after"] == "1", "with the time to come back")
    prove(limited.headers["x-request-id"] == "busy", "and the request id")
    error_of(429, limited.content)
    prove(all(client.get("/health").status_code == 200 for _ in range(100)), "/health is never limited")
    time.sleep(1)
    prove(client.get("/runs", headers=key).status_code == 200, "a second later requests go through again")


def check_console(client: httpx.Client) -> None:
    """Prove that the console and its pictures come through, however many are asked for at once."""
    key = {"X-API-Key": _KEY}
    for below in ("", _BELOW):
        names = [f"{below}/", *(f"{below}/console/{name}" for name in console_files() if not name.endswith(".html"))]
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            replies = list(pool.map(lambda name: client.get(name, headers=_PAGE), names))
        statuses = Counter(reply.status_code for reply in replies)
        where = f" below {below}" if below else ""
        prove(statuses == {200: len(names)}, f"the console's {len(names)} files come at once{where}", statuses)
        policies = {reply.headers["content-security-policy"] for reply in replies}
        prove(len(policies) == 1 and "trusted-types" in policies.pop(), "each with the console's own policy", policies)

    rng = np.random.default_rng(1)
    pngs = [
        cv2.imencode(".png", image)[1].tobytes() for image in rng.integers(0, 256, (_N_PICTURES, 64, 64, 3), np.uint8)
    ]
    roi = {"recipe_id": "default", "role_id": "Soak", "roi_id": "Pictures", "model_key": "Pictures"}
    metas = json.dumps([{"filename": f"{number}.png", "mm_per_px": 0.2} for number in range(_N_PICTURES)])
    files = [("images", (f"{number}.png", png)) for number, png in enumerate(pngs)]
    stored = client.post("/datasets/ok/upload", data=roi | {"metas": metas}, files=files, headers=key)
    prove(stored.status_code == 200, f"{_N_PICTURES} pictures are stored", stored)
    listed = client.get("/datasets/list", params=roi, headers=key).json()["classes"]["ok"]["files"]
    asked = [roi | {"label": "ok", "filename": name, "size": "256"} for name in listed]
    start = time.monotonic()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        small = list(pool.map(lambda query: client.get("/datasets/file", params=query, headers=key), asked))
    seconds = time.monotonic() - start
    statuses = Counter(reply.status_code for reply in small)
    prove(statuses == {200: _N_PICTURES}, f"and come back small within {seconds:.1f} s, none of them refused", statuses)


def check_in_browser(address: str) -> None:
    """Prove the same of a screen full of pictures in Chromium."""
    found = installed(CHROMIUM)
    if found is None:
        print("  no Chromium is installed: the console is not opened in it")
        return
    with sync_playwright() as running, running.chromium.launch(executable_path=found, args=["--no-sandbox"]) as browser:
        for below in ("", _BELOW):
            page = browser.new_page(ignore_https_errors=True)  # the certificate is its own
            statuses: Counter[int] = Counter()
            complaints: list[str] = []
            page.on("response", lambda reply, statuses=statuses: statuses.update([reply.status]))
            page.on("pageerror", lambda error, complaints=complaints: complaints.append(str(error)))
            page.goto(f"{address}{below}/#/samples?recipe=default&role=Soak&roi=Pictures")
            field: Any = page.get_by_label("Key", exact=True)
            field.fill(_KEY)
            field.press("Enter")
            pictures = page.locator(".sample img")
            expect(pictures.first).to_be_visible(timeout=_PATIENCE_MS)
            for cell in page.locator(".sample").all():
                cell.scroll_into_view_if_needed()
            expect(pictures).to_have_count(_N_PICTURES, timeout=_PATIENCE_MS)
            refused = {status for status in statuses if status >= 400} - {401, 404}  # no key yet, no layout yet
            where = f" below {below}" if below else ""
            prove(not refused and not complaints, f"a browser shows all {_N_PICTURES}{where}", (statuses, complaints))
            page.close()


def main() -> None:
    """Run all proofs; the exit status is 1 if one fails."""
    program("nginx")
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-nginx-") as name, contextlib.ExitStack() as front:
        folder, plain_port, tls_port = Path(name), free_port(), free_port()
        certificate = make_certificate(folder)
        context = ssl.create_default_context(cafile=str(certificate))
        client = front.enter_context(
            httpx.Client(base_url=f"https://localhost:{tls_port}", verify=context, trust_env=False, timeout=300)
        )
        with serving(folder=folder, as_set=False, API_KEYS=_KEY, ALLOWED_HOSTS="localhost,127.0.0.1") as server:
            site = adapted(certificate, plain_port, tls_port, server.port)
            front.enter_context(nginx(folder, site, tls_port))
            check(client, context, plain_port, tls_port, server)
            check_console(client)
            check_in_browser(f"https://localhost:{tls_port}")
        away = client.get("/runs")
        prove(
            away.status_code == 502 and "does not answer" in error_of(502, away.content), "a service that is away: 502"
        )
        prove(not re.search(r"\[(emerg|alert|crit)\]", (folder / "error.log").read_text()), "nginx reports no trouble")
    print("docker/nginx.conf holds what it promises.")


if __name__ == "__main__":
    try:
        main()
    except ProofError as exc:
        sys.exit(str(exc))
