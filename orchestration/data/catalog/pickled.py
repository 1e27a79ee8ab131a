"""Plain values out of a pickle, without the machine that could run code. Takes a binary file and the names that it may mention,
each with a function of ours; gives the value. Called by `tables` (data frames) and `torch_models` (tensors). A pickle is a program
for a stack; `pickletools` lists its instructions and runs none. Here each instruction that moves data is carried out, a name
outside the table ends the reading, and only functions of the table are called."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

Known = Mapping[str, Callable[..., Any]]  # "module name" -> what stands for it

# The instruction's own argument is the value.
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    function: Callable[..., Any]


def load(handle: BinaryIO, known: Known, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value; `handle` is left behind it. `persistent`: for references to what the pickle does not hold, as torch writes them.

    Raises ValueError for a name that is not known and an instruction that plain data does not need.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any
    for instruction, argument, _ in pickletools.genops(handle):
        name = instruction.name
        if name in _VALUES:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            start = marks.pop()
            _gather(name, stack, start)
        elif name in _TUPLES:
            _gather("TUPLE", stack, len(stack) - _TUPLES[name])
        elif name in ("APPEND", "SETITEM"):
            _gather(f"{name}S", stack, len(stack) - (1 if name == "APPEND" else 2))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            named = argument if name == "GLOBAL" else f"{stack[-2]} {stack[-1]}"
            if named not in known:
                raise ValueError(f"it names {named.replace(' ', '.')}")
            del stack[len(stack) - (0 if name == "GLOBAL" else 2) :]
            stack.append(_Name(known[named]))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, what = stack.pop(), stack.pop()
            if not isinstance(what, _Name):
                raise ValueError("it calls a value")
            stack.append(what.function(*_named(arguments)))
        elif name == "BUILD":
            state, value = stack.pop(), stack[-1]
            if hasattr(value, "__setstate__"):
                value.__setstate__(state)
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(_named(stack.pop())))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the instruction {name}")
    raise ValueError("it ends early")


def _named(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(item.function if isinstance(item, _Name) else item for item in arguments)


def _gather(name: str, stack: list[Any], start: int) -> None:
    """What lies above `start` becomes a tuple, or goes into the list or dictionary below."""
    items = stack[start:]
    del stack[start:]
    if name == "TUPLE":
        stack.append(tuple(items))
    elif name == "APPENDS":
        stack[-1].extend(items)
    else:
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
