"""What the demo downloads that is large: said before, with a bar, and done without where it cannot be had."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from vector_assets.cli.output import say, stderr
from vector_assets.engine.errors import TransientError

if TYPE_CHECKING:
    from pathlib import Path

    from vector_assets.cli.demo_part import Part

_EVERY_S = 0.5


def left_out(parts: "Mapping[str, Part]", *, is_needed: bool) -> dict[str, str]:
    """Fetch what the parts need; the parts that have to go without, and why.

    Raises:
        TransientError: it cannot be fetched, and `is_needed`.
        ConfigError: a package is missing.
    """
    from vector_assets.local import opensearch_home
    from vector_assets.local.opensearch import OpenSearchService

    asking = [name for name, part in parts.items() if OpenSearchService.name in part.services]
    if not asking or opensearch_home.is_there():
        return {}
    megabytes = opensearch_home.DOWNLOAD_BYTES // 1_000_000
    say(
        f"{'fetch':<9} OpenSearch {opensearch_home.VERSION} for {', '.join(asking)}: {megabytes} MB are downloaded,"
        f" once; {opensearch_home.KEPT_MB} MB stay in {opensearch_home.folder()}"
    )
    try:
        fetch_opensearch()
    except TransientError as error:
        if is_needed:
            raise
        return dict.fromkeys(asking, str(error))
    return {}


def fetch_opensearch() -> None:
    """Download OpenSearch, with a bar on a terminal and a line now and then elsewhere.

    Raises:
        TransientError: it cannot be downloaded.
        ConfigError: a package is missing.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from vector_assets.local import opensearch_home

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=stderr, transient=True, disable=not stderr.is_terminal,
    )  # fmt: skip
    task = bar.add_task("fetch", total=opensearch_home.DOWNLOAD_BYTES)

    def told(message: str) -> None:
        if stderr.is_terminal:
            bar.update(task, description=f"fetch: {message}")
        else:
            stderr.print(message, soft_wrap=True)

    with bar, ThreadPoolExecutor(1) as pool:
        done: Future[Path] = pool.submit(opensearch_home.fetch, told)
        seen: dict[Path, int] = {}
        while not wait([done], _EVERY_S).done:
            opensearch_home.measure(seen)
            bar.update(task, completed=sum(seen.values()))
        done.result()
