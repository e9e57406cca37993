"""`vector-assets bench embed`: texts a second through EMBED (hash, cache, requests, Arrow), beside the service alone.

The service alone gets the same requests from as many threads, its answers thrown away. Rounds of both alternate, and
the best of each counts; a last pass over the same texts says what vectors from the cache cost.
"""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import urllib3

from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.engine import env
from vector_assets.engine.core import POSITION
from vector_assets.local.embeddings import EmbeddingsService
from vector_assets.transforms.embedding import EmbeddingTransform

_OUTPUT = pa.schema([("v", pa.list_(pa.float32()))])
_WORDS = ("river", "engine", "market", "garden", "window", "letter", "winter", "copper", "doctor", "island")


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench embed", description=__doc__)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64, help="texts of a request")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoding", choices=("float", "base64"), default="float")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as home, env.overridden(VECTOR_ASSETS_HOME=home):
        service = EmbeddingsService(Path(home) / "embeddings")
        service.start()
        try:
            figures = _figures(arguments, service)
        finally:
            service.erase()
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _figures(arguments: argparse.Namespace, service: EmbeddingsService) -> dict[str, object]:
    options = EmbeddingOptions.parse(
        {
            "url": service.url, "api-key": service.api_key, "model": "universal-sentence-encoder",
            "batch-size": str(arguments.batch), "concurrency": str(arguments.concurrency),
            "encoding-format": arguments.encoding,
        },
        "EMBED",
    )  # fmt: skip
    ours, alone, own_cpu = [], [], []
    rows = _rows(arguments.texts, 0)
    for number in range(arguments.rounds):
        alone.append(_alone(arguments, options, _texts(arguments.texts, 2 * number)))
        rows = _rows(arguments.texts, 2 * number + 1)
        cpu = time.process_time()
        ours.append(_timed(options, rows))
        own_cpu.append(time.process_time() - cpu)
    requests = service.ask("GET", "counters")["requests"]
    cached = _timed(options, rows)
    paid_again = service.ask("GET", "counters")["requests"] - requests
    return {
        "texts": arguments.texts,
        "batch": arguments.batch,
        "concurrency": arguments.concurrency,
        "encoding": arguments.encoding,
        "texts_per_s": round(arguments.texts / min(ours)),
        "service_alone_texts_per_s": round(arguments.texts / min(alone)),
        "share_of_service": round(min(alone) / min(ours), 3),
        "own_cpu_ms_per_text": round(1000 * min(own_cpu) / arguments.texts, 3),
        "texts_per_s_of_rounds": [round(arguments.texts / each) for each in ours],
        "service_alone_of_rounds": [round(arguments.texts / each) for each in alone],
        "cached_texts_per_s": round(arguments.texts / cached),
        "requests_for_cached_texts": paid_again,
    }


def _texts(count: int, seed: int) -> list[str]:
    """Texts of twelve words, no two alike."""
    words = np.array(_WORDS)[np.random.default_rng(seed).integers(0, len(_WORDS), (count, 12))]
    return [f"{seed} {number} {' '.join(line)}" for number, line in enumerate(words.tolist())]


def _rows(count: int, seed: int) -> pa.Table:
    return pa.table({"v": pa.array(_texts(count, seed)), POSITION: pa.array(np.arange(count))})


def _timed(options: EmbeddingOptions, rows: pa.Table) -> float:
    """Seconds of EMBED over the rows."""
    transform = EmbeddingTransform(("v",), options, _OUTPUT, pipeline="bench")
    began = time.monotonic()
    transform.apply(rows)
    return time.monotonic() - began


def _alone(arguments: argparse.Namespace, options: EmbeddingOptions, texts: list[str]) -> float:
    """Seconds of the requests alone."""
    assert options.api_key is not None, "the local service has a key"
    headers = {"Authorization": f"Bearer {options.api_key.get_secret_value()}"}
    pool = urllib3.PoolManager(maxsize=arguments.concurrency, timeout=60.0)
    bodies = [
        orjson.dumps(
            {"model": options.model, "input": texts[at : at + arguments.batch], "encoding_format": arguments.encoding}
        )
        for at in range(0, len(texts), arguments.batch)
    ]

    def post(body: bytes) -> int:
        return pool.request("POST", options.url, body=body, headers=headers).status

    began = time.monotonic()
    with ThreadPoolExecutor(arguments.concurrency) as threads:
        statuses = set(threads.map(post, bodies))
    assert statuses == {200}, statuses
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
