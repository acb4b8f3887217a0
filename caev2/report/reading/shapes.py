"""What a file of results has to hold before a page is made of it: a wrong value is told, and no section fails of it."""

import math
from collections.abc import Mapping
from typing import Any

from caev2.eval.interval import Accuracy

WRONG = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What comes of content that is not what caev2 writes."""


def text(content: Mapping[str, Any], key: str) -> str:
    """A text.

    Raises:
        KeyError, TypeError: There is none.
    """
    return _of_kind(content[key], key, str)


def whole(content: Mapping[str, Any], key: str) -> int:
    """A whole number from 0 up.

    Raises:
        KeyError, TypeError, ValueError: There is none.
    """
    found = _of_kind(content[key], key, int)
    if found < 0:
        raise ValueError(f"{key} is {found}")
    return found


def number(content: Mapping[str, Any], key: str) -> float:
    """A finite number.

    Raises:
        KeyError, TypeError, ValueError: There is none.
    """
    return finite(content[key], key)


def mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object; empty where there is none.

    Raises:
        TypeError: There is something else.
    """
    found = content.get(key)
    return {} if found is None else _of_kind(found, key, dict)


def finite(value: Any, key: str) -> float:
    """A finite number.

    Raises:
        TypeError, ValueError: It is none.
    """
    found = float(_of_kind(value, key, (int, float)))
    if not math.isfinite(found):
        raise ValueError(f"{key} is {found}")
    return found


def share(value: Any, key: str) -> float:
    """A number from 0 to 1.

    Raises:
        TypeError, ValueError: It is none.
    """
    found = finite(value, key)
    if not 0 <= found <= 1:
        raise ValueError(f"{key} is {found}, which is no share")
    return found


def accuracy(content: Mapping[str, Any], key: str) -> Accuracy:
    """A share with its interval.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    return Accuracy(**{end: share(content[end], f"{key}.{end}") for end in ("value", "low", "high")})


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts of a run that name none.

    Raises:
        KeyError, TypeError, ValueError: One of them is not what it should be.
    """
    if facts:
        whole(facts, "step")
        for key in ("fingerprint", "checkpoint_sha256", "store_fingerprint", "store_digest"):
            text(facts, key)
        mapping(mapping(facts, "target"), "teacher")


def check_asked(kind: str, content: Mapping[str, Any]) -> None:
    """Refuse a result that does not say how it was made, as the command that makes it again has to.

    Raises:
        KeyError, TypeError, ValueError: Something is missing or wrong.
    """
    settings = mapping(content, "settings")
    whole(content, "seed")
    if kind == "segment":
        for key in ("epochs", "batch_size"):
            whole(settings, key)
        text(settings, "head")
        number(settings, "lr")
        whole(content, "ignore")
        return
    text(content, "train_digest")
    text(content, "val_digest")
    for asked in settings:
        _check_question(asked, mapping(settings, asked))
    for subject in content["subjects"]:
        _check_protocol(subject)


def _check_question(kind: str, asked: Mapping[str, Any]) -> None:
    if kind in ("attentive", "official-linear", "finetune"):
        whole(asked, "epochs")
    if kind == "few-shot" and not all(type(one) is int for one in asked["shots"]):
        raise TypeError(f"shots is {asked['shots']!r:.40}")


def _check_protocol(subject: Mapping[str, Any]) -> None:
    for asked in mapping(subject, "protocol"):
        mapping(subject["protocol"], asked)
    for key in ("sha256", "not_available", "resize_px", "crop_px"):
        _of_kind(subject[key], key, (int if key.endswith("px") else str, type(None)))


def _of_kind(value: Any, key: str, kind: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{key} is {value!r:.40}")
    return value
