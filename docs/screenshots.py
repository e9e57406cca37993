"""Take the pictures of Dagster's UI that the docs show: run the demo in a home of its own, open it in a real browser.

    python3.11 -m venv /tmp/browser && /tmp/browser/bin/pip install playwright
    /tmp/browser/bin/python docs/screenshots.py --chromium /usr/bin/chromium

Without --chromium playwright's own browser is used (`playwright install chromium`). The demo and Dagster run from
`.venv/bin`, or from the folder that --bin names. Everything listens on 127.0.0.1 and is stopped at the end; --home
keeps what the demo made for a next time. This file imports nothing of the project, whose dependencies do not include
playwright.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
MOST_BYTES = 150_000
WAIT_S = 600
CHECKS = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } } } } }"""


def main() -> None:
    """Run the demo, open the UI, take every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", help="a Chromium to use instead of playwright's own")
    parser.add_argument("--bin", type=Path, default=REPOSITORY / ".venv" / "bin", help="where vector-assets is")
    parser.add_argument(
        "--home", type=Path, help="folder for what the demo makes; default: a new one, deleted at the end"
    )
    options = parser.parse_args()
    home = options.home or Path(tempfile.mkdtemp(prefix="vector-assets-screenshots-"))
    (home / "dagster_home").mkdir(parents=True, exist_ok=True)
    # PostgreSQL may run as another user
    home.chmod(0o711)
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home / "dagster_home")
    environment = {**os.environ, "VECTOR_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster_home")}
    try:
        subprocess.run([options.bin / "vector-assets", "demo"], cwd=REPOSITORY, env=environment, check=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [options.bin / "dagster", "dev", "--host", "127.0.0.1", "--port", str(port), "-w", "workspace.yaml"]
        with (home / "dev.log").open("wb") as log:
            server = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            take_all(f"http://127.0.0.1:{port}", options.chromium)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    finally:
        subprocess.run([options.bin / "vector-assets", "services", "down"], cwd=REPOSITORY, env=environment, check=True)
        if options.home is None:
            shutil.rmtree(home)


def take_all(base: str, chromium: str | None) -> None:
    """Every picture, by its file's name."""
    until("the web server", lambda: bool(ask(base, "{ version }")))
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(WAIT_S * 1000)
        for asset in ("car_info", "people"):
            execute_checks(page, base, asset)
        for name, take in PICTURES.items():
            take(page, base)
            # what is loaded after the text that was waited for
            page.wait_for_load_state("load")
            page.wait_for_timeout(3000)
            file = IMAGES / f"{name}.png"
            page.screenshot(path=file)
            sys.stdout.write(f"{file.relative_to(REPOSITORY)}: {file.stat().st_size:,} bytes\n")
            if file.stat().st_size > MOST_BYTES:
                sys.exit(f"{file} is over {MOST_BYTES:,} bytes")
        browser.close()


def execute_checks(page: Page, base: str, asset: str) -> None:
    """Run all checks of an asset from the UI, as a person does, and wait for their results."""
    page.goto(f"{base}/assets/{asset}?view=checks")
    page.get_by_role("button", name="Execute all").click()

    def are_done() -> bool:
        found = ask(base, CHECKS, key={"path": [asset]})["assetNodeOrError"]["assetChecksOrError"]["checks"]
        states = {(check["executionForLatestMaterialization"] or {}).get("status") for check in found}
        return states <= {"SUCCEEDED", "FAILED"}

    until("the checks", are_done)


def overview(page: Page, base: str) -> None:
    """Description, columns, kinds."""
    page.goto(f"{base}/assets/car_info?view=overview")
    page.get_by_text("Column name").wait_for()


def plots(page: Page, base: str) -> None:
    """The numbers of each batch."""
    overview(page, base)
    page.get_by_text("Plots", exact=True).click()
    page.get_by_role("button", name="Events").click()
    page.get_by_text("age_seconds").wait_for()
    page.mouse.move(600, 600)
    page.mouse.wheel(0, 480)


def graph(page: Page, base: str) -> None:
    """From topics to the table and the collection."""
    groups = ",".join(f"global@global:{name}" for name in ("adbpg", "kafka", "milvus"))
    page.goto(f"{base}/asset-groups?{urllib.parse.urlencode({'expanded': groups})}")
    page.get_by_text("people_changes").first.wait_for()


def checks(page: Page, base: str) -> None:
    """What the checks found."""
    page.goto(f"{base}/assets/car_info?view=checks&checkDetail=reconcile")
    page.get_by_text("rows are as they should be").first.wait_for()


def partitions(page: Page, base: str) -> None:
    """Hours, and the batches of one of them."""
    page.goto(f"{base}/assets/people?view=partitions&status=MATERIALIZED")
    page.get_by_text("Materialized (").wait_for()
    page.wait_for_timeout(2000)
    page.locator("text=/^20[0-9-]+:00$/").nth(2).click()
    page.get_by_text("commit_seconds").first.wait_for()


def runs(page: Page, base: str) -> None:
    """The runs."""
    page.goto(f"{base}/runs")
    page.get_by_text("car_info").first.wait_for()


PICTURES: dict[str, Callable[[Page, str], None]] = {
    "asset": overview,
    "plots": plots,
    "graph": graph,
    "checks": checks,
    "partitions": partitions,
    "runs": runs,
}


def ask(base: str, query: str, **variables: object) -> dict:
    """The data that GraphQL answers; nothing where nobody answers."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{base}/graphql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return {}
    if found.get("errors"):
        sys.exit(f"GraphQL: {found['errors']}")
    return found["data"]


def until(what: str, is_so: Callable[[], bool]) -> None:
    """Wait for something, but not for ever."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {WAIT_S} s")
        time.sleep(1)


if __name__ == "__main__":
    main()
