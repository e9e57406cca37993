"""What stands in a JSON document, as loops for LLVM: white space, texts, words, numbers, times; see `json_kernel`.

Each takes the address where something begins and that where its document ends, and gives the address behind it, or 0
where something else stands there. Nothing is read from the document's end on, but by `text`, which is told how far.
"""

from collections.abc import Callable

from vector_assets.formats.json_code import LANES, Code, Slot, Value

MOST_DIGITS = 15
"""Decimal digits that a double holds exactly, and by what power of ten it is divided exactly."""
_MOST_INTEGER = 18
_SPACE, _QUOTE, _PLUS, _MINUS, _POINT, _ZERO, _COLON, _BACKSLASH = b' "+-.0:\\'


def _space(code: Code, at: Value, end: Value) -> None:
    """`space(at, end)`: past white space."""
    here = code.slot(at)
    with code.loop() as loop:
        loop.leave_unless(here.get().below(end))
        char = code.byte(here.get())
        loop.leave_if(char.above(_SPACE))
        loop.leave_unless(char.eq(_SPACE) | char.eq(9) | char.eq(10) | char.eq(13))
        here.add(1)
    code.give(here.get())


def _text(code: Code, at: Value, end: Value, limit: Value, high: Value) -> None:
    """`text(at, end, limit, high)`: the closing quote of the text that begins there; or 0.

    Reads nothing from `limit` on. The word at `high` is not 0 once a byte was above 127, here or a little further on.
    """
    here, done = code.slot(at), code.slot(code.of(0))
    with code.loop() as loop:
        place = here.get()
        code.give_if(place.least(end), 0)
        with code.either((place + LANES).at_most(limit)) as (wide, narrow):
            with wide:
                found, any_high = code.scan(place, (_QUOTE, _BACKSLASH), _SPACE)
                with code.when(any_high):
                    code.store(high, code.of(1), 64)
                here.set(place + found)
                done.set(found.ne(LANES).word())
            with narrow:
                char = code.byte(place)
                with code.when(char.above(127)):
                    code.store(high, code.of(1), 64)
                done.set((char.eq(_QUOTE) | char.eq(_BACKSLASH) | char.below(_SPACE)).word())
                here.set(place + 1 - done.get())
        loop.leave_if(done.get().ne(0))
    code.give_if(here.get().least(end), 0)
    code.give_if(code.byte(here.get()).ne(_QUOTE), 0)
    code.give(here.get())


def _word(code: Code, at: Value, end: Value, wanted: Value, size: Value) -> None:
    """`word(at, end, wanted, size)`: past these bytes, or 0 when others are there."""
    code.give_if((at + size).above(end), 0)
    place = code.slot(code.of(0))
    with code.loop() as loop:
        loop.leave_unless((place.get() + 8).at_most(size))
        code.give_if(code.load(at + place.get(), 64).ne(code.load(wanted + place.get(), 64)), 0)
        place.add(8)
    with code.loop() as loop:
        loop.leave_unless(place.get().below(size))
        code.give_if(code.byte(at + place.get()).ne(code.byte(wanted + place.get())), 0)
        place.add(1)
    code.give(at + size)


def _digits(code: Code, at: Value, end: Value, into: Value) -> None:
    """`digits(at, end, into)`: past decimal digits; the word at `into` goes on with them, and wraps round."""
    here, number = code.slot(at), code.slot(code.load(into, 64))
    with code.loop() as loop:
        loop.leave_unless(here.get().below(end))
        digit = code.byte(here.get()) - _ZERO
        loop.leave_unless(digit.below(10))
        number.set(number.get() * 10 + digit)
        here.add(1)
    code.store(into, number.get(), 64)
    code.give(here.get())


def _whole(code: Code, at: Value, end: Value, into: Value) -> None:
    """`whole(at, end, into)`: past the digits of a number before its point, as JSON has them, or 0."""
    after = code.call("digits", at, end, into)
    code.give_if(after.eq(at), 0)
    code.give_if(code.byte(at).eq(_ZERO) & (after - at).above(1), 0)
    code.give(after)


def _integer(code: Code, at: Value, end: Value, out: Value) -> None:
    """`integer(at, end, out)`: past a whole number of at most 18 digits, which is put there; or 0. No -0."""
    code.give_if(at.least(end), 0)
    minus = code.byte(at).eq(_MINUS).word()
    first = at + minus
    code.store(out, code.of(0), 64)
    after = code.call("whole", first, end, out)
    code.give_if(after.eq(0) | (after - first).above(_MOST_INTEGER), 0)
    number = code.load(out, 64)
    code.give_if(minus.ne(0) & number.eq(0), 0)
    with code.when(minus.ne(0)):
        code.store(out, code.of(0) - number, 64)
    code.give(after)


def _double(code: Code, at: Value, end: Value, out: Value, is_long: Value) -> None:
    """`double(at, end, out, is_long)`: past a number, which is put there; or 0.

    The word at `is_long` becomes 1 where it has more digits than a double holds for sure, or an exponent: what is at
    `out` is not the number then.
    """
    code.give_if(at.least(end), 0)
    minus = code.byte(at).eq(_MINUS).word()
    code.store(out, code.of(0), 64)
    point = code.slot(code.call("whole", at + minus, end, out))
    code.give_if(point.get().eq(0), 0)
    digits, fraction = code.slot(point.get() - (at + minus)), code.slot(code.of(0))
    here = code.slot(point.get())
    with code.when(code.is_at(here.get(), end, _POINT)):
        after = code.call("digits", here.get() + 1, end, out)
        fraction.set(after - here.get() - 1)
        code.give_if(fraction.get().eq(0), 0)
        digits.set(digits.get() + fraction.get())
        here.set(after)
    long = code.slot(digits.get().above(MOST_DIGITS).word())
    with code.when(code.is_at(here.get(), end, ord("e")) | code.is_at(here.get(), end, ord("E"))):
        here.add(1)
        here.set(here.get() + code.is_at(here.get(), end, _PLUS).word() + code.is_at(here.get(), end, _MINUS).word())
        after = code.call("digits", here.get(), end, is_long)
        code.give_if(after.eq(here.get()), 0)
        here.set(after)
        long.set(code.of(1))
    code.store(is_long, long.get(), 64)
    with code.when(long.get().eq(0)):
        code.store_double(out, code.load(out, 64), fraction.get(), minus)
    code.give(here.get())


def _moment(code: Code, at: Value, end: Value, rules: Value, out: Value) -> None:
    """`moment(at, end, rules, out)`: past a timestamp and the quote behind it, which is put there; or 0.

    `rules`: the character between date and clock, then the one at the end (0: none), then the digits of a second's
    fraction that the column holds, 8 bits each. Years 1 to 9999, days that the calendar has, no 24:00:00.
    """
    code.give_if((at + 20).above(end), 0)
    char = [code.byte(at + place) for place in range(19)]
    digit = {place: char[place] - _ZERO for place in (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)}
    fits = char[4].eq(_MINUS) & char[7].eq(_MINUS) & char[10].eq(rules & 255) & char[13].eq(_COLON)
    fits = fits & char[16].eq(_COLON)
    for each in digit.values():
        fits = fits & each.below(10)
    code.give_unless(fits, 0)
    year = digit[0] * 1000 + digit[1] * 100 + digit[2] * 10 + digit[3]
    month, day, hour, minute, second = (digit[place] * 10 + digit[place + 1] for place in (5, 8, 11, 14, 17))
    code.give_unless(year.above(0) & month.above(0) & month.at_most(12) & day.above(0), 0)
    code.give_unless(hour.below(24) & minute.below(60) & second.below(60), 0)
    code.give_if(day.above(_days_of(code, year, month)), 0)
    here, fraction, unit = _fraction(code, at + 19, end, (rules >> 16) & 255, out)
    zone = (rules >> 8) & 255
    with code.when(zone.ne(0)):
        code.give_if(here.get().least(end), 0)
        code.give_if(code.byte(here.get()).ne(zone), 0)
        here.add(1)
    code.give_unless(code.is_at(here.get(), end, _QUOTE), 0)
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    code.store(out, seconds * unit + fraction, 64)
    code.give(here.get() + 1)


def _fraction(code: Code, at: Value, end: Value, most: Value, out: Value) -> tuple[Slot, Value, Value]:
    """Where the fraction of a second ends, if there is one, and it in units of which a second has 10**`most`.

    More digits than `most` end the function.
    """
    here, fraction, unit = code.slot(at), code.slot(code.of(0)), code.slot(code.of(1))
    count = code.slot(code.of(0))
    with code.when(code.is_at(here.get(), end, _POINT)):
        code.store(out, code.of(0), 64)
        after = code.call("digits", here.get() + 1, end, out)
        count.set(after - here.get() - 1)
        code.give_if(count.get().eq(0) | count.get().above(most), 0)
        fraction.set(code.load(out, 64))
        here.set(after)
    place = code.slot(code.of(0))
    with code.loop() as loop:
        loop.leave_unless(place.get().below(most))
        unit.set(unit.get() * 10)
        with code.when(place.get().least(count.get())):
            fraction.set(fraction.get() * 10)
        place.add(1)
    return here, fraction.get(), unit.get()


def _days_of(code: Code, year: Value, month: Value) -> Value:
    """How many days a month has."""
    surplus = sum((days - 28) << (2 * number) for number, days in enumerate(_MONTHS, 1))
    is_leap = ((year & 3).eq(0) & year.modulo(100).ne(0)) | year.modulo(400).eq(0)
    return ((code.of(surplus) >> (month * 2)) & 3) + 28 + (is_leap & month.eq(2)).word()


_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BEFORE_1970 = 719_468
"""Days from 1 March of the year 0 on; years that begin in March have their leap day at the end."""


def _days(year: Value, month: Value, day: Value) -> Value:
    """Days since 1970 in the Gregorian calendar."""
    early = month.below(3).word()
    since_march = year - early
    month_place = month + early * 12 - 3
    in_year = (month_place * 153 + 2).over(5) + day - 1
    return (
        since_march * 365 + since_march.over(4) - since_march.over(100) + since_march.over(400) + in_year - _BEFORE_1970
    )


Written = tuple[str, int, Callable[..., None]]
"""Name, number of arguments (words all of them), and what says what it does."""
SCALARS: tuple[Written, ...] = (
    ("space", 2, _space), ("text", 4, _text), ("word", 4, _word), ("digits", 3, _digits), ("whole", 3, _whole),
    ("integer", 3, _integer), ("double", 4, _double), ("moment", 4, _moment),
)  # fmt: skip
"""Each calls those before it only."""
SMALL = ("space", "digits", "whole")
"""Those that become part of their callers."""
