"""Machine code from Python that reads like what it does: words of 64 bits, bytes at addresses, loops and conditions.

A thin layer over llvmlite's builder, which is imported when something is compiled. All functions take words and give
one; an address is a word. Variables stand on the stack until LLVM's passes take them into registers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

LANES = 16


class Value:
    """A word, or what a comparison gives; operators are those of unsigned numbers, and wrap round."""

    __slots__ = ("_code", "raw")

    def __init__(self, code: "Code", raw: Any) -> None:
        self._code, self.raw = code, raw

    def _done(self, name: str, other: "Value | int") -> "Value":
        return Value(self._code, getattr(self._code.builder, name)(self.raw, self._code.raw(other)))

    def _compared(self, sign: str, other: "Value | int") -> "Value":
        return Value(self._code, self._code.builder.icmp_unsigned(sign, self.raw, self._code.raw(other)))

    def __add__(self, other: "Value | int") -> "Value":
        return self._done("add", other)

    def __sub__(self, other: "Value | int") -> "Value":
        return self._done("sub", other)

    def __mul__(self, other: "Value | int") -> "Value":
        return self._done("mul", other)

    def __and__(self, other: "Value | int") -> "Value":
        return self._done("and_", other)

    def __or__(self, other: "Value | int") -> "Value":
        return self._done("or_", other)

    def __lshift__(self, other: "Value | int") -> "Value":
        return self._done("shl", other)

    def __rshift__(self, other: "Value | int") -> "Value":
        return self._done("lshr", other)

    def over(self, other: int) -> "Value":
        """Divided, rounded down."""
        return self._done("udiv", other)

    def modulo(self, other: int) -> "Value":
        """What is left of a division."""
        return self._done("urem", other)

    def eq(self, other: "Value | int") -> "Value":
        """Equal."""
        return self._compared("==", other)

    def ne(self, other: "Value | int") -> "Value":
        """Not equal."""
        return self._compared("!=", other)

    def below(self, other: "Value | int") -> "Value":
        """Less."""
        return self._compared("<", other)

    def at_most(self, other: "Value | int") -> "Value":
        """Less or equal."""
        return self._compared("<=", other)

    def above(self, other: "Value | int") -> "Value":
        """Greater."""
        return self._compared(">", other)

    def least(self, other: "Value | int") -> "Value":
        """Greater or equal."""
        return self._compared(">=", other)

    def word(self) -> "Value":
        """Of a comparison: 1 or 0."""
        return Value(self._code, self._code.builder.zext(self.raw, self._code.types.word))


class Slot:
    """A variable."""

    __slots__ = ("_code", "_place")

    def __init__(self, code: "Code", place: Any) -> None:
        self._code, self._place = code, place

    def get(self) -> Value:
        """Its value now."""
        return Value(self._code, self._code.builder.load(self._place))

    def set(self, value: Value) -> None:
        """Another value."""
        self._code.builder.store(value.raw, self._place)

    def add(self, number: int) -> None:
        """So much more."""
        self.set(self.get() + number)


class Loop:
    """What runs again and again until it is left."""

    __slots__ = ("_code", "_exit")

    def __init__(self, code: "Code", way_out: Any) -> None:
        self._code, self._exit = code, way_out

    def leave_if(self, condition: Value) -> None:
        """Go on behind the loop."""
        on = self._code.builder.append_basic_block("on")
        self._code.builder.cbranch(condition.raw, self._exit, on)
        self._code.builder.position_at_end(on)

    def leave_unless(self, condition: Value) -> None:
        """Go on behind the loop when it is not so."""
        on = self._code.builder.append_basic_block("on")
        self._code.builder.cbranch(condition.raw, on, self._exit)
        self._code.builder.position_at_end(on)


class _Types:
    """LLVM's types."""

    def __init__(self) -> None:
        from llvmlite import ir

        self.ir = ir
        self.word, self.byte, self.flag, self.double = ir.IntType(64), ir.IntType(8), ir.IntType(1), ir.DoubleType()
        self.address = ir.PointerType()
        self.lanes = ir.VectorType(self.byte, LANES)

    def function(self, arguments: int) -> Any:
        return self.ir.FunctionType(self.word, [self.word] * arguments)


class Code:
    """One function being written."""

    def __init__(
        self, types: _Types, module: Any, name: str, arguments: int, *, is_inner: bool, is_small: bool
    ) -> None:
        self.types, self._module = types, module
        self._function = types.ir.Function(module, types.function(arguments), name)
        if is_inner:
            self._function.linkage = "internal"
            if not is_small:
                # inlined wherever they are called, they take twice as long to compile and run no faster
                self._function.attributes.add("noinline")
        self._entry = self._function.append_basic_block("entry")
        self.builder = types.ir.IRBuilder(self._function.append_basic_block("body"))
        self._body = self.builder.block
        self.arguments = [Value(self, each) for each in self._function.args]

    def finish(self) -> None:
        """Nothing more comes; it has given something on every way."""
        if not self.builder.block.is_terminated:
            self.builder.unreachable()
        self.types.ir.IRBuilder(self._entry).branch(self._body)

    def raw(self, value: Value | int) -> Any:
        """What LLVM calls a value or number."""
        return value.raw if isinstance(value, Value) else self.types.ir.Constant(self.types.word, value)

    def of(self, number: int) -> Value:
        """A number."""
        return Value(self, self.raw(number))

    def _on_stack(self, kind: Any) -> Any:
        return self.types.ir.IRBuilder(self._entry).alloca(kind)

    def slot(self, start: Value) -> Slot:
        """A variable with its first value."""
        slot = Slot(self, self._on_stack(self.types.word))
        slot.set(start)
        return slot

    def scratch(self, words: int) -> Value:
        """The address of so many words that this call has for itself."""
        place = self._on_stack(self.types.ir.ArrayType(self.types.word, words))
        return Value(self, self.builder.ptrtoint(place, self.types.word))

    def constant(self, data: bytes) -> Value:
        """The address of these bytes."""
        kind = self.types.ir.ArrayType(self.types.byte, len(data))
        name = f"constant_{data.hex()}"
        if name not in self._module.globals:
            made = self.types.ir.GlobalVariable(self._module, kind, name)
            made.global_constant, made.linkage = True, "internal"
            made.initializer = self.types.ir.Constant(kind, bytearray(data))
        return Value(self, self.builder.ptrtoint(self._module.globals[name], self.types.word))

    def _pointer(self, address: Value) -> Any:
        return self.builder.inttoptr(address.raw, self.types.address)

    def load(self, address: Value, bits: int) -> Value:
        """The number of so many bits there."""
        kind = self.types.ir.IntType(bits)
        found = self.builder.load(self._pointer(address), align=1, typ=kind)
        return Value(self, found if bits == self.types.word.width else self.builder.zext(found, self.types.word))

    def byte(self, address: Value) -> Value:
        """The byte there."""
        return self.load(address, 8)

    def word(self, address: Value, number: int) -> Value:
        """The word of that number there."""
        return self.load(address + 8 * number, 64)

    def item(self, address: Value, number: int, place: Value) -> Value:
        """A word of the array whose address is the word of that number there."""
        return self.load(self.word(address, number) + place * 8, 64)

    def is_at(self, address: Value, end: Value, char: int) -> Value:
        """This byte is there, before the end; nothing is read from the end on."""
        found = self.slot(self.of(0))
        with self.when(address.below(end)):
            found.set(self.byte(address).eq(char).word())
        return found.get().ne(0)

    def store(self, address: Value, value: Value, bits: int) -> None:
        """Put the lowest bits of a word there."""
        kind = self.types.ir.IntType(bits)
        cut = value.raw if bits == self.types.word.width else self.builder.trunc(value.raw, kind)
        self.builder.store(cut, self._pointer(address), align=1)

    def store_double(self, address: Value, digits: Value, scale: Value, minus: Value) -> None:
        """Put `digits` / 10**`scale` there, which is exact up to 15 of both; negative where `minus` is not 0."""
        kind = self.types.ir.ArrayType(self.types.double, LANES)
        if "powers" not in self._module.globals:
            made = self.types.ir.GlobalVariable(self._module, kind, "powers")
            made.global_constant, made.linkage = True, "internal"
            made.initializer = self.types.ir.Constant(kind, [10.0**power for power in range(LANES)])
        table = Value(self, self.builder.ptrtoint(self._module.globals["powers"], self.types.word))
        power = self.builder.load(self._pointer(table + scale * 8), typ=self.types.double)
        number = self.builder.fdiv(self.builder.uitofp(digits.raw, self.types.double), power)
        number = self.builder.select(minus.ne(0).raw, self.builder.fneg(number), number)
        self.builder.store(number, self._pointer(address), align=1)

    def copy(self, address: Value, to: Value) -> None:
        """Copy 16 bytes."""
        found = self.builder.load(self._pointer(address), align=1, typ=self.types.lanes)
        self.builder.store(found, self._pointer(to), align=1)

    def scan(self, address: Value, chars: Sequence[int], least: int) -> tuple[Value, Value]:
        """Of 16 bytes: where the first of `chars` or byte below `least` is (16: nowhere), and whether one is > 127."""
        builder, ir = self.builder, self.types.ir
        bytes_ = builder.load(self._pointer(address), align=1, typ=self.types.lanes)
        stops = builder.icmp_unsigned("<", bytes_, self._lanes(least))
        for char in chars:
            stops = builder.or_(stops, builder.icmp_unsigned("==", bytes_, self._lanes(char)))
        high = builder.icmp_signed("<", bytes_, self._lanes(0))
        bits = builder.zext(builder.bitcast(stops, ir.IntType(LANES)), ir.IntType(32))
        sure = builder.or_(bits, ir.Constant(ir.IntType(32), 1 << LANES))
        first = builder.zext(builder.cttz(sure, ir.Constant(self.types.flag, 0)), self.types.word)
        any_high = builder.icmp_unsigned(
            "!=", builder.bitcast(high, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0)
        )
        return Value(self, first), Value(self, any_high)

    def _lanes(self, number: int) -> Any:
        return self.types.ir.Constant(self.types.lanes, [number] * LANES)

    def call(self, name: str, *arguments: Value) -> Value:
        """What another function of the module gives."""
        return Value(self, self.builder.call(self._module.globals[name], [each.raw for each in arguments]))

    def give(self, value: Value) -> None:
        """The function ends with this."""
        self.builder.ret(value.raw)

    def give_if(self, condition: Value, number: int) -> None:
        """The function ends with this number if it is so."""
        with self.when(condition):
            self.give(self.of(number))

    def give_unless(self, condition: Value, number: int) -> None:
        """The function ends with this number if it is not so."""
        self.give_if(Value(self, self.builder.not_(condition.raw)), number)

    def when(self, condition: Value) -> Any:
        """What runs if it is so (a context)."""
        return self.builder.if_then(condition.raw)

    def either(self, condition: Value) -> Any:
        """What runs if it is so, and what runs if not (a context of two contexts)."""
        return self.builder.if_else(condition.raw)

    @contextmanager
    def loop(self) -> Iterator[Loop]:
        """What runs until it is left."""
        again, way_out = self.builder.append_basic_block("again"), self.builder.append_basic_block("out")
        self.builder.branch(again)
        self.builder.position_at_end(again)
        yield Loop(self, way_out)
        if not self.builder.block.is_terminated:
            self.builder.branch(again)
        self.builder.position_at_end(way_out)


def compiled(
    functions: Sequence[tuple[str, int, Callable[..., None]]], wanted: Sequence[str], small: Sequence[str]
) -> tuple[Any, dict[str, int]]:
    """The engine that holds the machine code of these functions, and the addresses of those that are wanted.

    Those that are `small` become part of their callers.

    Raises:
        ImportError: llvmlite is not there.
        RuntimeError, OSError: it does not work here.
    """
    import llvmlite.binding as llvm

    types = _Types()
    module = types.ir.Module()
    for name, arguments, write in functions:
        code = Code(types, module, name, arguments, is_inner=name not in wanted, is_small=name in small)
        write(code, *code.arguments)
        code.finish()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(parsed, passes)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine, {name: engine.get_function_address(name) for name in wanted}
