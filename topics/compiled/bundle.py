"""`Bundle`: arrays under names, that kernels take as one pointer.

numba passes an array as seven words, so a pool's tables, given to a function as a named tuple, are two hundred words written
and read again at every call that is not inlined (a quarter of an order's time), and the compiler carries them through every
function. A bundle is one word: the address of its arrays' addresses and shapes, read when an array is used. A kernel reads
`t.cells` as it would of a named tuple.
Owner: whoever made the bundle keeps it while a kernel runs; its arrays can't be replaced: a table that has grown is another
bundle. Fields may be C-contiguous arrays, bundles and whole numbers.
"""

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.core.typing.typeof import typeof_impl
from numba.extending import NativeValue, unbox

_WORD = ir.IntType(64)


class BundleType(types.Type):
    """What numba knows of a bundle: its fields' names and types, in order."""

    def __init__(self, name: str, fields: tuple[tuple[str, types.Type], ...]):
        self.fields = dict(fields)
        # The types' own names, of whole records, would make every symbol kilobytes long.
        known = hashlib.blake2b(repr(fields).encode(), digest_size=8).hexdigest()
        super().__init__(f"{name}_{known}")
        self.places, at = {}, 0
        for field, kind in fields:
            self.places[field] = at
            at += 1 + kind.ndim if isinstance(kind, types.Array) else 1


_Kind = tuple[np.dtype, int, bool] | BundleType | None
"""Of a field: dtype, dimensions and alignment of an array; another bundle's type; None = a whole number."""


@cache
def _type_of(name: str, fields: tuple[str, ...], kinds: tuple[_Kind, ...]) -> BundleType:
    """Give the type of a bundle; numba takes milliseconds to describe its records."""
    return BundleType(name, tuple((field, _numba_type(kind)) for field, kind in zip(fields, kinds, strict=True)))


def _numba_type(kind: _Kind) -> types.Type:
    if isinstance(kind, tuple):
        dtype, ndim, aligned = kind
        return types.Array(numba.from_dtype(dtype), ndim, "C", aligned=aligned)
    return types.int64 if kind is None else kind


class Bundle:
    """Base of all bundles; a class of them names its fields.

    Examples
    --------
    >>> class Pair(Bundle):
    ...     _fields = ("left", "right")
    >>> pair = Pair(left=np.arange(3), right=np.zeros(2))
    >>> pair.left.size
    3
    """

    _address: int
    _numba_type_: BundleType

    _fields: tuple[str, ...] = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, *values: Any, **named: Any):
        given = dict(zip(self._fields, values, strict=False)) | named
        if set(given) != set(self._fields) or len(values) + len(named) != len(self._fields):
            raise TypeError(f"{type(self).__name__}: expected {', '.join(self._fields)}; found {', '.join(given)}")
        words: list[int] = []
        kinds: list[_Kind] = []
        for name in self._fields:
            value = given[name]
            setattr(self, name, value)
            if isinstance(value, np.ndarray):
                if not value.flags.c_contiguous:
                    raise ValueError(f"{type(self).__name__}.{name}: expected a C-contiguous array")
                words += [value.ctypes.data, *value.shape]
                kinds.append((value.dtype, value.ndim, value.flags.aligned))
            else:
                words.append(value._address if isinstance(value, Bundle) else int(value))
                kinds.append(value._numba_type_ if isinstance(value, Bundle) else None)
        self._words = np.array(words, np.int64)
        self._address = self._words.ctypes.data
        self._numba_type_ = _type_of(type(self).__name__, self._fields, tuple(kinds))

    def arrays(self) -> dict[str, np.ndarray]:
        """Give its own arrays by name, without those of bundles in it."""
        values = {name: getattr(self, name) for name in self._fields}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


@typeof_impl.register(Bundle)
def _typeof(value: Bundle, _context: Any) -> BundleType:
    return value._numba_type_


@register_default(BundleType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: BundleType):
        super().__init__(manager, kind, _WORD.as_pointer())


@unbox(BundleType)
def _unbox(_kind: BundleType, value: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(value, "_address")
    address = c.pyapi.long_as_voidptr(number)
    c.pyapi.decref(number)
    pointer = c.builder.bitcast(address, _WORD.as_pointer())
    return NativeValue(pointer, is_error=cgutils.is_not_null(c.builder, c.pyapi.err_occurred()))


@infer_getattr
class _Attributes(AttributeTemplate):
    key = BundleType

    def generic_resolve(self, kind: BundleType, name: str) -> types.Type | None:
        return kind.fields.get(name)


@lower_getattr_generic(BundleType)
def _read(context: Any, builder: Any, kind: BundleType, value: Any, name: str) -> Any:
    found, place = kind.fields[name], kind.places[name]

    def word(at: int) -> Any:
        loaded = builder.load(builder.gep(value, [ir.Constant(ir.IntType(32), at)]))
        # Nothing changes them while a kernel runs: a loop need not read them again after each store.
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        return loaded

    if not isinstance(found, types.Array):
        return builder.inttoptr(word(place), _WORD.as_pointer()) if isinstance(found, BundleType) else word(place)
    item = context.get_abi_sizeof(context.get_data_type(found.dtype))
    shape = [word(place + 1 + axis) for axis in range(found.ndim)]
    strides: list[Any] = []
    step = ir.Constant(_WORD, item)
    for extent in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, extent)
    array = context.make_array(found)(context, builder)
    context.populate_array(
        array,
        data=builder.inttoptr(word(place), array.data.type),
        shape=shape,
        strides=strides,
        itemsize=ir.Constant(_WORD, item),
        meminfo=None,
    )
    return array._getvalue()
