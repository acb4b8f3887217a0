"""The codecs by name. `klt` and `pq` are for the study; after a colon they take the bytes of a token: `klt:256`."""

from caev2.errors import ConfigError
from caev2.recipe import nearest
from caev2.store.codecs.codec import Codec
from caev2.store.codecs.float16 import Float16Codec
from caev2.store.codecs.int8 import Int8Codec
from caev2.store.codecs.klt import KltCodec
from caev2.store.codecs.lloyd4 import Lloyd4Codec
from caev2.store.codecs.pq import PqCodec

CODECS: dict[str, Codec] = {
    codec.name: codec for codec in (Float16Codec(), Int8Codec(), Lloyd4Codec(), KltCodec(), PqCodec())
}
_SIZED = {"klt": KltCodec, "pq": PqCodec}


def codec_named(name: str) -> Codec:
    """A codec by its name; after a colon, the bytes of a token's codes.

    Raises:
        ConfigError: There is none of that name, or the bytes are no number above zero.
    """
    if name in CODECS:
        return CODECS[name]
    kind, colon, count = name.partition(":")
    if not colon or kind not in _SIZED:
        raise ConfigError(f"There is no codec called {name!r}. {nearest(kind, CODECS)}")
    if not (count.isascii() and count.isdigit() and int(count) > 0 and str(int(count)) == count):
        raise ConfigError(f"Codec {name!r} does not say how many bytes a token takes. Write a number: {kind}:124.")
    return _SIZED[kind](int(count))
