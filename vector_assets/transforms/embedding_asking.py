"""Vectors of texts: from the cache where they are known, else from the model, in requests side by side.

What a request brings is in the cache before anything else is done with it. A request that is refused is sent in
halves, so that a text the model does not take costs only itself.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np

from vector_assets.clients.embeddings import Answer, EmbeddingsClient, TextsRefusedError, WrongAnswerError
from vector_assets.clients.embeddings_limits import StoppedError
from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.engine.errors import FatalError, PlanError, TransientError
from vector_assets.engine.retry import RetryPolicy, call
from vector_assets.transforms.embedding_cache import EmbeddingCache, Paid, Vectors, claims_of
from vector_assets.transforms.embedding_texts import Numbers, Texts

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 3.0
"""What a token is taken for before a model has counted any: English has 4 to 5 bytes in one, Chinese about 3."""
_COUNTED_BYTES = 10_000
"""After so many bytes a model's own count is believed."""
_LOOK_SECONDS = 0.1
_TRIAL = "a plain text"


@dataclass(slots=True)
class Found:
    """Vectors of texts, by number: `vectors[places[n]]` is that of text n, -1 for none; `reasons` says why it has none.

    `reused` were in the cache; the rest of the numbers is what was paid for.
    """

    vectors: Vectors
    places: Numbers
    reasons: dict[int, str]
    embedded: int = 0
    reused: int = 0
    tokens: int = 0
    cost: float = 0.0


class Model:
    """A model with its cache, for one pipeline; threads may share it."""

    def __init__(self, options: EmbeddingOptions, pipeline: str, *, cache: EmbeddingCache | None = None) -> None:
        self.options = options
        self.pipeline = pipeline
        self.client = EmbeddingsClient(options)
        self.cache = cache or EmbeddingCache(options.space)
        self.most = options.batch_size
        self._is_proven = False
        self._proof = threading.Lock()

    def vectors(self, texts: Texts, stop: threading.Event) -> Found:
        """The vectors of texts; no text that is in the cache, or that another thread is asking for, is sent.

        Raises:
            StoppedError: `stop` was set; what came back before is in the cache.
            FatalError: the model does not answer, or not as it should, or would cost more than it may.
            PlanError: the model refuses whatever it is asked.
            ConfigError: it refuses the key, or is not there.
        """
        gathered = _Gathered(len(texts.unique))
        claims = claims_of(self.cache)
        while True:
            open_ = gathered.open()
            numbers, vectors = self.cache.find(texts.keys_of(open_))
            gathered.add(open_[numbers], vectors, is_reused=True)
            open_ = gathered.open()
            if not len(open_):
                return gathered.found(self.options)
            keys = [texts.key(number) for number in open_.tolist()]
            is_mine = claims.take(keys)
            mine = open_[np.array(is_mine)]
            if not len(mine):
                if stop.is_set():
                    raise StoppedError("the run was told to stop while another one asked for its texts")
                claims.wait(_LOOK_SECONDS)
                continue
            try:
                # somebody may have been paying for them until a moment ago
                numbers, vectors = self.cache.find(texts.keys_of(mine))
                gathered.add(mine[numbers], vectors, is_reused=True)
                self._pay(texts, np.delete(mine, numbers), gathered, stop)
            finally:
                claims.release([key for key, claimed in zip(keys, is_mine, strict=True) if claimed])

    def known(self, texts: Texts) -> Numbers:
        """Which of the texts are in the cache, by number; nothing is asked and nothing made."""
        if not self.cache.is_there():
            return np.zeros(0, np.int64)
        return self.cache.find(texts.keys)[0]

    def tokens_of(self, size: float) -> float:
        """How many tokens so many bytes of text will be: by what the model counted so far, else BYTES_PER_TOKEN."""
        paid = self.cache.paid(model=self.options.model)
        counted = sum(each.bytes for each in paid)
        if counted < _COUNTED_BYTES:
            return size / BYTES_PER_TOKEN
        return size * sum(each.tokens for each in paid) / counted

    def paid_today(self) -> float:
        """What the pipeline paid since midnight (UTC)."""
        return sum(each.cost for each in self.cache.paid(pipeline=self.pipeline, day=_today()))

    def _pay(self, texts: Texts, numbers: Numbers, gathered: "_Gathered", stop: threading.Event) -> None:
        """Ask for texts that nobody has."""
        if not len(numbers):
            return
        estimate = self.options.cost(self.tokens_of(float(texts.sizes[numbers].sum())))
        with _reserved(self, estimate, len(numbers)):
            requests = _cut(numbers, texts.sizes[numbers], self.options)
            ending = threading.Event()
            # a batch's requests go before those of the next one, which so can be made while it is written
            asking = _Asking(self, texts, gathered, ending, next(_turns))
            with ThreadPoolExecutor(min(self.options.concurrency, len(requests)), "embedding") as pool:
                _finished([pool.submit(asking.send, part) for part in requests], stop, ending)

    def prove(self, stop: threading.Event) -> None:
        """Make sure that a refusal is not about the request itself, once, before texts are blamed.

        Raises:
            PlanError: the model refuses even a plain text.
        """
        with self._proof:
            if self._is_proven:
                return
            try:
                answer = self.answer([_TRIAL], stop)
            except TextsRefusedError as error:
                raise PlanError(f"the model refuses whatever it is asked, so no text is to blame: {error}") from error
            self.book(answer, len(_TRIAL), b"", answer.vectors[:0])

    def answer(self, texts: Sequence[str], stop: threading.Event, turn: int = 0) -> Answer:
        """The model's answer, asked for again as the options allow, and once more when it is wrong."""
        options = self.options
        policy = RetryPolicy(options.retries, options.retry_wait.total_seconds(), options.outage.total_seconds(), stop)
        place = f"{self.pipeline}: embedding {len(texts)} texts"
        try:
            try:
                answer = call(policy, lambda: self.client.embed(texts, stop, turn), place=place)
            except WrongAnswerError as error:
                log.warning("%s: %s; asking once more", place, error)
                answer = call(policy, lambda: self.client.embed(texts, stop, turn), place=place)
        except StoppedError:
            raise
        except TransientError as error:
            if stop.is_set():
                raise StoppedError(f"the run was told to stop: {error}") from error
            raise FatalError(
                f"{error}; it was asked {options.retries + 1} times, or as long as 'outage' says"
            ) from error
        self._is_proven = True
        return answer

    def book(self, answer: Answer, size: int, keys: bytes, vectors: Vectors) -> tuple[int, float]:
        """Keep what an answer brought, and what it cost: tokens and price."""
        tokens = answer.tokens if answer.tokens is not None else round(size / BYTES_PER_TOKEN)
        cost, count = self.options.cost(tokens), len(answer.vectors)
        paid = Paid(_today(), self.pipeline, self.options.model, 1, count, size, tokens, cost)
        self.cache.add(keys, vectors, paid)
        return tokens, cost


@dataclass(slots=True)
class _Gathered:
    """What is known of the texts so far. Thread-safe for `add` and `refuse`."""

    count: int
    parts: list[tuple[Numbers, Vectors]] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    reused: int = 0
    embedded: int = 0
    tokens: int = 0
    cost: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> Numbers:
        """The texts of which nothing is known."""
        is_open = np.ones(self.count, np.bool_)
        for numbers, _ in self.parts:
            is_open[numbers] = False
        is_open[list(self.reasons)] = False
        return np.flatnonzero(is_open)

    def add(
        self, numbers: Numbers, vectors: Vectors, *, is_reused: bool = False, tokens: int = 0, cost: float = 0.0
    ) -> None:
        """Vectors of some texts."""
        with self.lock:
            if len(numbers):
                self.parts.append((numbers, vectors))
            self.reused += len(numbers) if is_reused else 0
            self.embedded += 0 if is_reused else len(numbers)
            self.tokens += tokens
            self.cost += cost

    def refuse(self, number: int, reason: str) -> None:
        """A text that has no vector."""
        with self.lock:
            self.reasons[number] = reason

    def found(self, options: EmbeddingOptions) -> Found:
        """All of it."""
        places = np.full(self.count, -1, np.int64)
        numbers = np.concatenate([part for part, _ in self.parts]) if self.parts else np.zeros(0, np.int64)
        empty = np.zeros((0, options.dimensions or 0), np.float32)
        vectors = np.concatenate([part for _, part in self.parts]) if self.parts else empty
        places[numbers] = np.arange(len(numbers))
        return Found(vectors, places, self.reasons, self.embedded, self.reused, self.tokens, self.cost)


@dataclass(frozen=True, slots=True)
class _Asking:
    """The requests of one batch; ends early when `ending` is set."""

    model: Model
    texts: Texts
    gathered: _Gathered
    ending: threading.Event
    turn: int

    def send(self, numbers: Numbers) -> None:
        """One request, and if it is refused, its halves."""
        if len(numbers) > self.model.most:
            self._halves(numbers)
            return
        sent = self.texts.unique.take(numbers).to_pylist()
        try:
            answer = self.model.answer(sent, self.ending, self.turn)
        except TextsRefusedError as error:
            self.model.prove(self.ending)
            if len(numbers) == 1:
                self.gathered.refuse(int(numbers[0]), f"EMBED: {error}")
                return
            self._halves(numbers)
            if not any(number in self.gathered.reasons for number in numbers.tolist()):
                # no text was to blame: there were too many
                self.model.most = min(self.model.most, len(numbers) - len(numbers) // 2)
            return
        self._keep(numbers, answer)

    def _halves(self, numbers: Numbers) -> None:
        middle = len(numbers) - len(numbers) // 2
        self.send(numbers[:middle])
        self.send(numbers[middle:])

    def _keep(self, numbers: Numbers, answer: Answer) -> None:
        is_whole = np.asarray(np.isfinite(answer.vectors).all(axis=1))
        for number in numbers[~is_whole].tolist():
            reason = f"EMBED: the vector that {self.model.options.model} answers has NaN or an infinity"
            self.gathered.refuse(number, reason)
        kept, vectors = numbers[is_whole], answer.vectors[is_whole]
        size = int(self.texts.sizes[numbers].sum())
        tokens, cost = self.model.book(answer, size, self.texts.keys_of(kept), vectors)
        self.gathered.add(kept, vectors, tokens=tokens, cost=cost)


def _finished(futures: "list[Future[None]]", stop: threading.Event, ending: threading.Event) -> None:
    """Wait for all; the first failure, or a stop, keeps the others from sending anything more."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _LOOK_SECONDS, FIRST_EXCEPTION)
        if stop.is_set() or any(each.exception() for each in done):
            ending.set()
    errors = [error for each in futures if (error := each.exception()) is not None]
    own = [error for error in errors if not isinstance(error, StoppedError)]
    if own or errors:
        raise (own or errors)[0]


def _cut(numbers: Numbers, sizes: Numbers, options: EmbeddingOptions) -> list[Numbers]:
    """Texts in requests: as many as may go together, their bytes within the limit unless one alone is over it."""
    ends = np.cumsum(sizes)
    parts, start = [], 0
    while start < len(numbers):
        before = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, before + options.batch_bytes, side="right"))
        end = min(max(end, start + 1), start + options.batch_size)
        parts.append(numbers[start:end])
        start = end
    return parts


_turns = count(1)
_reservations: dict[tuple[Path, str], float] = {}
_till = threading.Lock()


@contextmanager
def _reserved(model: Model, cost: float, count: int) -> Iterator[None]:
    """Money set aside for a batch before it is sent.

    Raises:
        FatalError: the pipeline would pay more today than `max-cost`; nothing is sent.
    """
    most = model.options.max_cost
    if most is None:
        yield
        return
    place = (model.cache.path, model.pipeline)
    with _till:
        paid, held = model.paid_today(), _reservations.get(place, 0.0)
        if paid + held + cost > most:
            raise FatalError(
                f"{model.pipeline}: {count} texts would cost about {cost:.6g}, today {paid + held:.6g} is paid or on"
                f" its way, option 'max-cost' is {most:.6g}: nothing of this batch was sent; raise it, or run again"
                " tomorrow (UTC)"
            )
        _reservations[place] = held + cost
    try:
        yield
    finally:
        with _till:
            _reservations[place] -= cost


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
