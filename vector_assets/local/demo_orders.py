"""The demo's orders: a topic of nested JSON whose messages change half-way, some of them bad."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

import orjson

from vector_assets.local.demo_topic import Filled, fill
from vector_assets.local.kafka import KafkaService
from vector_assets.local.s3 import S3Service
from vector_assets.local.service import Progress

SERVICES = (KafkaService.name, S3Service.name)
PIPELINES = ("orders", "orders_archive")
"""The job whose table follows the messages, and the one that keeps its columns."""
TOPIC = "shop_orders"
RECORDS = 4_000
DRIFT = RECORDS // 2
"""The first order of the new form."""

_SEED = 20260303
_CITIES = ("Berlin", "Hangzhou", "Lagos", "Lima", "Oslo", "Porto")
_NAMES = ("Ada", "Alan", "Barbara", "Edsger", "Frances", "Grace", "Karen", "Leslie", "Tony")
_COUPONS = ("SPRING", "WELCOME", "BIRTHDAY")
_BEYOND_INT = 2**31

Document = dict[str, object]
Spoil = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Orders:
    """The messages in order, and by id what each order said that is one."""

    messages: tuple[bytes, ...]
    documents: Mapping[int, Document]

    @property
    def changed(self) -> list[Document]:
        """Those with something that the first ones did not have, or not so large."""
        return [each for number, each in self.documents.items() if number > DRIFT]


@cache
def orders() -> Orders:
    """The same at every call: from the middle on with a coupon, a tier, and points beyond INT; five are no orders."""
    # a fixed seed: nothing here is secret
    source = random.Random(_SEED)
    poison = dict(zip(range(RECORDS // 10, RECORDS, RECORDS // len(_POISON)), _POISON.values(), strict=True))
    messages: list[bytes] = []
    documents: dict[int, Document] = {}
    for number in range(1, RECORDS + 1):
        document = _order(source, number)
        text = orjson.dumps(document, default=_number)
        spoil = poison.get(number)
        messages.append(spoil(text) if spoil else text)
        if spoil is None:
            documents[number] = document
    return Orders(tuple(messages), documents)


def _order(source: random.Random, number: int) -> Document:
    lines = [
        {"sku": f"A{source.randrange(1000):03}", "quantity": source.randrange(1, 5)}
        for _ in range(source.randrange(1, 4))
    ]
    customer = {"name": source.choice(_NAMES), "city": source.choice(_CITIES)}
    made: Document = {
        "id": number,
        "at": f"2026-03-01 {8 + number * 12 // (RECORDS + 1):02}:{source.randrange(60):02}:{source.randrange(60):02}",
        "total": Decimal(source.randrange(500, 50_000)).scaleb(-2),
        "points": source.randrange(1_000_000),
        "customer": customer,
        "lines": lines,
    }
    if number > DRIFT:
        customer["tier"] = source.choice(("silver", "gold"))
        made["coupon"] = source.choice(_COUPONS)
        if number % 2:
            made["points"] = _BEYOND_INT + source.randrange(1_000_000)
    return made


def _number(value: object) -> orjson.Fragment:
    """A Decimal with its own digits."""
    return orjson.Fragment(str(value).encode())


_POISON: Mapping[str, Spoil] = {
    "cut message": lambda text: text[:40],
    "a word without quotes": lambda text: text.replace(b'"id":', b'"note":urgent,"id":'),
    "not a number": lambda text: text.replace(b'"points":', b'"weight":NaN,"points":'),
    "a list of orders": lambda text: b"[" + text + b"]",
    "not UTF-8": lambda text: text.replace(b'"name":"', b'"name":"M\xfcller '),
}
POISON = len(_POISON)


def fill_topic(progress: Progress) -> Filled:
    """Create the topic and produce the messages it lacks.

    Raises:
        TransientError: the broker does not answer.
    """
    return fill(TOPIC, [(None, message) for message in orders().messages], progress)
