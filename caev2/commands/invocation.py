"""What all commands share: options, progress bars, how a result is printed and how a command is left.

torch and everything that brings it are imported inside the commands, so that `--help` answers at once.
"""

import contextlib
import dataclasses
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from caev2.commands.ranks import is_first
from caev2.errors import Caev2Error, ConfigError, FirstRankRefused
from caev2.store.remote.cache import CacheSettings
from caev2.store.remote.paths import DEFAULT_CACHE, StorePath, open_remote
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.terminal import Bars

REFUSED = 2
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended: 128 + SIGINT
TERMINATED = 143  # 128 + SIGTERM


class Commands(click.Group):
    """A group that turns expected failures into one paragraph and exit status 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse unknown options of the program itself."""
        try:
            return super().parse_args(ctx, args)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as problem:
            leave(ctx, _say_usage(problem), REFUSED)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            with _leaving_in_order():
                return super().invoke(ctx)
        except FirstRankRefused:
            sys.exit(REFUSED)  # the first rank has said why
        except Caev2Error as problem:
            leave(ctx, str(problem), REFUSED)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as problem:
            leave(ctx, _say_usage(problem), REFUSED)
        except Terminated:
            leave(ctx, _say_once("ended by SIGTERM. What was finished is kept; the same command goes on."), TERMINATED)
        except KeyboardInterrupt:
            leave(ctx, _say_once("interrupted. What was finished is kept; the same command goes on."), INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the work, not of the alphabet."""
        return list(self.commands)


class Terminated(KeyboardInterrupt):
    """The process was asked to end, as by a batch queue: it leaves as for Ctrl-C, with nothing half written."""


@contextlib.contextmanager
def _leaving_in_order() -> Iterator[None]:
    """Leave by an exception, so that what is unfinished is cleaned up."""

    def leave_now(number: int, frame: object) -> NoReturn:
        del frame
        for other in _ASKING:
            signal.signal(other, signal.SIG_IGN)  # leaving takes a moment, and asking again would tear it
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # nobody can send a signal to another one
        yield
        return
    before = {number: signal.getsignal(number) for number in _ASKING}
    for number in _ASKING:
        if before[number] is not signal.SIG_IGN:  # as a shell's background job has Ctrl-C
            signal.signal(number, leave_now)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ASKING = (signal.SIGTERM, signal.SIGINT)


def _say_usage(problem: click.UsageError) -> str:
    hint = f" See `{problem.ctx.command_path} --help`." if problem.ctx else ""
    return problem.format_message() + hint


def leave(ctx: click.Context, message: str | None, status: int) -> NoReturn:
    """End the program with one paragraph on standard error, if there is anything to say."""
    if ctx.find_root().obj is not None:
        ctx.find_root().obj.finish()  # or the bar would be drawn over the message
    if message is not None:
        click.echo("caev2: " + " ".join(message.split()), err=True)
    sys.exit(status)


def _say_once(message: str) -> str | None:
    """What happens to all processes of a command alike, the first one says."""
    return message if is_first() else None


def bars(quiet: bool) -> "Bars":
    """The bars of this command, which it closes however it ends."""
    from caev2.terminal import Bars

    ctx = click.get_current_context().find_root()
    ctx.obj = Bars(quiet)
    return ctx.obj


def example(text: str) -> str:
    """The end of a command's help."""
    return f"\b\nExample:\n  caev2 {text}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print one machine-readable result.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress bars.")
device_option = click.option(
    "--device", default=None, help="Where to compute: cpu, cuda, cuda:1. Default: a GPU if there is one."
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting of the recipe; may be repeated.",
)


class _StoreType(click.ParamType):
    """A store's folder, or its URL; copies of what is read from a URL lie in a cache that the environment may name."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> StorePath:
        """The path, of which nothing is read yet."""
        if not isinstance(value, str) or "://" not in value:
            return Path(value)
        return open_remote(value, cache_settings())


class _ImagesType(click.ParamType):
    """Where images lie: a path or a pattern of paths, or such a URL."""

    name = "images"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | ImagesUrl:
        """The place, of which nothing is read yet."""
        if not isinstance(value, str) or "://" not in value:
            return value if isinstance(value, ImagesUrl) else Path(value)
        return ImagesUrl(value, cache_settings())


def cache_settings() -> CacheSettings:
    """Where copies of what lies at URLs are kept, as the environment says.

    Raises:
        ConfigError: The limit is no number.
    """
    folder, limit = os.environ.get(CACHE), os.environ.get(CACHE_GB)
    try:
        limit_bytes = DEFAULT_CACHE.limit_bytes if limit is None else int(float(limit) * 1e9)
    except (ValueError, OverflowError):
        raise ConfigError(f"{CACHE_GB} is {limit!r}; give a number of gigabytes.") from None
    return CacheSettings(folder=Path(folder).expanduser() if folder else DEFAULT_CACHE.folder, limit_bytes=limit_bytes)


class _LocalType(click.ParamType):
    """A path on this machine."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; what is a URL is refused, and not made a folder of that name."""
        if "://" in str(value):
            self.fail(
                f"{value} is a URL; give a local path. `caev2 store copy` brings a store to a URL and back.",
                param,
                ctx,
            )
        return Path(value)


STORE, LOCAL, IMAGES = _StoreType(), _LocalType(), _ImagesType()
CACHE, CACHE_GB = "CAEV2_CACHE", "CAEV2_CACHE_GB"
"""Variables of the environment: where copies of stores and images at URLs are kept, and how many gigabytes."""


def common_options(command: Callable) -> Callable:
    """The options of every command that takes time."""
    return device_option(quiet_option(json_option(command)))


def pick_device(name: str | None) -> str:
    """The device that was asked for, or the best there is.

    Raises:
        ConfigError: There is no such device.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ConfigError(f"--device cannot be {name!r}. Give cpu, cuda, or cuda:1 for the second GPU.")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise ConfigError(
            f"--device {name!r} cannot be used: {str(problem).splitlines()[0]}. Try --device cpu."
        ) from None
    return name


def print_result(result: Any, as_json: bool, title: str) -> None:
    """Print a result, or a mapping of facts, for people or for machines."""
    from caev2.terminal import print_facts, print_json

    facts = result if isinstance(result, dict) else dataclasses.asdict(result)
    if as_json:
        print_json(facts)
    else:
        print_facts(title, facts)


def list_failures(failures: tuple[tuple[str, str], ...]) -> str:
    """How many images cannot be used, and the first of them with their reasons."""
    shown = "; ".join(f"{key}: {reason}" for key, reason in failures[:3])
    return f"{len(failures)}" + (f" ({shown}{'; ...' if len(failures) > 3 else ''})" if failures else "")
