"""The whole road, shown: an image is built and run, a cluster started, a notebook opened on it, and the notebook survives its pod.

Every step is a command a reader would type; what it prints is shown, and a table of times ends the tour. It leaves all running; the last
lines say how to take it away. Run it again at any time: each step copes with what is there already.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
ATOLL = shutil.which("atoll", path=str(Path(sys.executable).parent)) or "atoll"
NODE_PORT = 30888
LOCAL_PORT = 8899  # of the port-forward; 8888 may be a notebook of the reader's own
PATIENCE_S = 300
COLOUR = sys.stdout.isatty()


class Failed(Exception):
    """A step did not do what it must; the message tells which command, and how to see more."""


def say(text: str = "") -> None:
    print(text, flush=True)


def shown(words: tuple[str, ...]) -> str:
    line = " ".join(words)
    return f"\033[1m$ {line}\033[0m" if COLOUR else f"$ {line}"


def run(*words: str, quiet: bool = False, stdin: str | None = None) -> str:
    """Show a command, run it, show what it prints as it comes, and return it."""
    say(shown(words))
    command = [ATOLL, *words[1:]] if words[0] == "atoll" else list(words)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        if stdin:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if not quiet:
                say("  " + line.rstrip())
    if process.returncode:
        if quiet:
            say("".join(lines[-20:]))
        raise Failed(f"`{' '.join(words)}` ended with status {process.returncode}. Look closer: atoll doctor; atoll engine logs")
    return "".join(lines)


def kubectl(*words: str, quiet: bool = False) -> str:
    return run("atoll", "kubectl", *words, quiet=quiet)


def until(what: str, attempt: Callable[[], str | None]) -> str:
    """Try until it answers; the bound is PATIENCE_S."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = attempt()
        if found is not None:
            return found
        time.sleep(0.2)
    raise Failed(f"{what} did not happen within {PATIENCE_S} s. Look closer: atoll kubectl get pods,events")


def fetch(url: str, token: str, body: dict[str, object] | None = None, method: str = "GET") -> bytes | None:
    """One request to Jupyter; None while nothing answers yet."""
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"token {token}", "Content-Type": "application/json"})
    data = json.dumps(body).encode() if body is not None else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the cluster is no business of a proxy
    try:
        with opener.open(request, data, timeout=10) as answer:
            content: bytes = answer.read()
            return content
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


STEPS: list[tuple[str, Callable[[dict[str, str]], None]]] = []


def step(title: str) -> Callable[[Callable[[dict[str, str]], None]], Callable[[dict[str, str]], None]]:
    def add(function: Callable[[dict[str, str]], None]) -> Callable[[dict[str, str]], None]:
        STEPS.append((title, function))
        return function

    return add


@step("What this machine allows")
def _doctor(_: dict[str, str]) -> None:
    run("atoll", "doctor")


@step("hello-world proves the installation")
def _hello(_: dict[str, str]) -> None:
    run("atoll", "run", "--rm", "hello-world")


@step("A base image: debian:bookworm")
def _base(_: dict[str, str]) -> None:
    if "debian:bookworm" in run("atoll", "images", "--format", "{{.Repository}}:{{.Tag}}", quiet=True).split():
        say("  debian:bookworm is here already")
        return
    try:
        run("atoll", "pull", "debian:bookworm")
    except Failed:
        say("  No registry answers: the image is made from Debian's own packages instead.")
        run("atoll", "image", "bootstrap", "debian:bookworm")


@step("Build hello-docker")
def _build_hello(_: dict[str, str]) -> None:
    run("atoll", "build", str(EXAMPLES / "hello-docker"), "-t", "hello-docker")


@step("Run it; run it with words of our own")
def _cow(_: dict[str, str]) -> None:
    cow = run("atoll", "run", "--rm", "hello-docker")
    own = run("atoll", "run", "--rm", "hello-docker", "/usr/games/cowsay", "My own words")
    if "^__^" not in cow or "My own words" not in own:
        raise Failed("the cow did not speak")


@step("Build the notebook image")
def _build_notebook(_: dict[str, str]) -> None:
    run("atoll", "build", str(EXAMPLES / "notebook"), "-t", "notebook")
    run("atoll", "images")


@step("Start a cluster")
def _cluster(facts: dict[str, str]) -> None:
    run("atoll", "cluster", "start")
    if " Ready " not in kubectl("get", "nodes"):
        raise Failed("the node is not Ready")
    facts["ip"] = run("atoll", "cluster", "ip").strip()


@step("A claim, a deployment, a service")
def _apply(_: dict[str, str]) -> None:
    kubectl("apply", "-f", str(EXAMPLES / "notebook" / "notebook.yaml"))
    kubectl("rollout", "status", "deployment/notebook", f"--timeout={PATIENCE_S}s")
    kubectl("get", "pv,pvc,deploy,po,svc")


@step("Open the notebook through the node's port")
def _open(facts: dict[str, str]) -> None:
    def token() -> str | None:
        found = re.search(r"[?&]token=([0-9a-f]+)", kubectl("logs", "deploy/notebook", quiet=True))
        return found[1] if found else None

    facts["token"] = until("The notebook's token in its log", token)
    facts["url"] = f"http://{facts['ip']}:{NODE_PORT}"
    until("An answer through the node's port", lambda: _title(facts["url"], facts["token"]))


@step("Open it through kubectl port-forward")
def _forward(facts: dict[str, str]) -> None:
    with forwarded():
        until("An answer through port-forward", lambda: _title(f"http://127.0.0.1:{LOCAL_PORT}", facts["token"]))


def _title(url: str, token: str) -> str | None:
    page = fetch(f"{url}/lab?token={token}", token)
    if page is None or b"JupyterLab" not in page:
        return None
    say(f"  {url}/lab answers: {len(page)} bytes, JupyterLab")
    return url


@contextlib.contextmanager
def forwarded() -> Iterator[None]:
    words = ("atoll", "kubectl", "port-forward", "deploy/notebook", f"{LOCAL_PORT}:8888")
    say(shown(words) + " &")
    with subprocess.Popen([ATOLL, *words[1:]], stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@step("Write a notebook, lose its pod, read it back")
def _survive(facts: dict[str, str]) -> None:
    place = f"{facts['url']}/api/contents/kept.ipynb"
    words = f"written {time.strftime('%F %T')}"
    cell = {"cell_type": "markdown", "metadata": {}, "source": words, "id": "kept"}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    if fetch(place, facts["token"], {"type": "notebook", "content": notebook}, "PUT") is None:
        raise Failed("Jupyter did not take the notebook")
    before = kubectl("get", "pods", "-l", "app=notebook", "-o", "name", quiet=True).strip()
    kubectl("delete", before)
    kubectl("rollout", "status", "deployment/notebook", f"--timeout={PATIENCE_S}s")
    after = kubectl("get", "pods", "-l", "app=notebook", "-o", "name", quiet=True).strip()
    if after == before:
        raise Failed("the pod is the old one")
    # A new process, a new token; the files are what stays.
    _open(facts)
    content = until("The notebook read back", lambda: (fetch(place, facts["token"]) or b"").decode() or None)
    if words not in content:
        raise Failed("the notebook's words are gone")
    say(f"  {before} is gone, {after} reads: {words!r}")


def table(times: list[tuple[str, float]]) -> str:
    width = max(len(title) for title, _ in times)
    rows = [f"  {title:<{width}}  {seconds:7.1f} s" for title, seconds in times]
    return "\n".join([*rows, f"  {'in all':<{width}}  {sum(seconds for _, seconds in times):7.1f} s"])


def main() -> int:
    facts: dict[str, str] = {}
    times = []
    for number, (title, function) in enumerate(STEPS, 1):
        heading = f"{number}. {title}"
        say(f"\n\033[1;36m{heading}\033[0m" if COLOUR else f"\n== {heading}")
        begin = time.monotonic()
        try:
            function(facts)
        except Failed as error:
            print(f"\nThe demo stops here: {error}", file=sys.stderr)
            return 1
        times.append((title, time.monotonic() - begin))
        say(f"  ({times[-1][1]:.1f} s)")
    say("\nTimes\n" + table(times))
    say(f"\nOpen the notebook:      {facts['url']}/lab?token={facts['token']}")
    say(f'Use the cluster:        eval "$({os.path.relpath(ATOLL)} env)"; kubectl get pods')
    say("Take everything away:   atoll cluster delete; atoll engine stop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
