"""`nodewright image`: the image store that a cluster's local node hosts share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from nodewright.cli.options import DEFAULT, Name, Output, StateDir, layout_of
from nodewright.cli.output import (
    FAILED,
    PRECONDITION,
    USAGE,
    CliError,
    Format,
    emit,
    human_bytes,
    print_table,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from nodewright_agent.runtime.images.credentials import Credential
    from nodewright_agent.runtime.images.model import Image, PullProgress
    from nodewright_agent.runtime.images.progress import PullUnderWay
    from nodewright_agent.runtime.images.store import ImageStore

T = TypeVar("T")

LINE_EVERY = 5.0
"""Seconds between lines that say how far a pull is, where there is no terminal."""

app = typer.Typer(no_args_is_help=True)

Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="The image store's folder; default: that of the cluster."),
]


@app.command("load")
def load(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Archives of docker save, or OCI archives.")],
    name: Name = DEFAULT,
    state_dir: StateDir = None,
    root: Root = None,
    output: Output = Format.TABLE,
) -> None:
    """Load images from archives. Of an archive that is broken in any part, nothing is loaded."""

    async def work(store: ImageStore) -> list[Image]:
        loaded = []
        for file in files:
            with _progress(str(file)) as report:
                loaded += await store.load(file, progress=report)
        return loaded

    _show(_run(_folder(name, state_dir, root), work), output)


@app.command("pull")
def pull(
    reference: Annotated[str, typer.Argument(metavar="IMAGE", help="Such as busybox or registry.example/app:1.")],
    name: Name = DEFAULT,
    state_dir: StateDir = None,
    root: Root = None,
    auth_file: Annotated[
        Path | None,
        typer.Option("--auth-file", metavar="FILE", help="Credentials, in the form of ~/.docker/config.json."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Fetch an image from its registry."""
    from nodewright_agent.runtime.images.credentials import matching
    from nodewright_agent.runtime.images.reference import parse

    credentials = _credentials(auth_file)

    async def work(store: ImageStore) -> list[Image]:
        with _progress(reference) as report:
            return [await store.pull(reference, auth=matching(credentials, parse(reference)), progress=report)]

    _show(_run(_folder(name, state_dir, root), work), output)


@app.command("list")
def list_images(
    name: Name = DEFAULT, state_dir: StateDir = None, root: Root = None, output: Output = Format.TABLE
) -> None:
    """List the images in the store, and those that anybody is pulling into it right now."""

    async def work(store: ImageStore) -> tuple[list[Image], list[PullUnderWay]]:
        return store.list(), store.under_way()

    images, pulls = _run(_folder(name, state_dir, root, must_exist=True), work)
    _show(images, output, pulls)


@app.command("rm")
def remove(
    references: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Names, digests or ids.")],
    name: Name = DEFAULT,
    state_dir: StateDir = None,
    root: Root = None,
) -> None:
    """Remove names of images; with its last name an image goes, and the layers that no other image has."""

    async def work(store: ImageStore) -> None:
        for reference in references:
            await asyncio.to_thread(store.remove, reference)
            stdout().print(f"removed {reference}", markup=False)

    _run(_folder(name, state_dir, root, must_exist=True), work)


@app.command("demo")
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The OCI archive to write.")],
    busybox: Annotated[
        Path | None, typer.Option("--busybox", metavar="FILE", help="A static busybox; default: the one in PATH.")
    ] = None,
    called: Annotated[
        str, typer.Option("--as", metavar="IMAGE", help="The image's name: another one makes it another version.")
    ] = "localhost/nodewright-demo:1",
) -> None:
    """Make the demo image from Debian's busybox-static: a small web server that says who answered."""
    from nodewright_agent.runtime.images import demo as image
    from nodewright_agent.runtime.images.errors import ImageError

    try:
        image.write(out, busybox, called)
    except ImageError as error:
        raise CliError(str(error), "apt-get install busybox-static", PRECONDITION) from None
    except OSError as error:
        # a write goes through a temporary file, whose name would tell nobody anything
        reading = busybox is not None and error.filename == str(busybox)
        what = f"cannot read {busybox}" if reading else f"cannot write {out}"
        raise CliError(f"{what}: {error.strerror}") from None
    stdout().print(f"{called} written to {out}", markup=False)


def _folder(name: str, state_dir: Path | None, root: Path | None, *, must_exist: bool = False) -> Path:
    """The store to work on. Naming a cluster that does not exist is a mistake; its store is made with it."""
    if root is not None:
        folder = root.expanduser().absolute()
        if must_exist and not folder.is_dir():
            raise CliError(f"there is no image store at {folder}", exit_code=PRECONDITION)
        return folder
    layout = layout_of(name, state_dir)
    if not layout.dir.is_dir():
        raise CliError(
            f"there is no cluster {name} below {layout.root}",
            f"start one with `nodewright up --name {name}`, or name a store with --root DIR",
            PRECONDITION,
        )
    return layout.images


def _run(folder: Path, work: Callable[[ImageStore], Awaitable[T]]) -> T:
    """Open the store, do the work, and turn image errors into what the user reads."""
    from nodewright_agent.runtime.images.errors import ImageError, InvalidImageName
    from nodewright_agent.runtime.images.settings import SettingsError
    from nodewright_agent.runtime.images.store import ImageStore

    async def session() -> T:
        store = ImageStore(folder, user="nodewright image pull")
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(session())
    except ImageError as error:
        raise CliError(str(error), exit_code=USAGE if isinstance(error, InvalidImageName) else FAILED) from None
    except SettingsError as error:
        raise CliError(str(error), exit_code=USAGE) from None


def _credentials(auth_file: Path | None) -> list[Credential]:
    if auth_file is None:
        return []
    from nodewright_agent.runtime.images.credentials import parse_docker_config

    try:
        return parse_docker_config(auth_file.expanduser().read_bytes())
    except ValueError as error:
        raise CliError(f"{auth_file}: {error}", exit_code=USAGE) from None


@contextmanager
def _progress(title: str) -> Iterator[Callable[[PullProgress], None]]:
    """Show bytes of all layers together: a bar on a terminal; in a log a line per finished layer, and now and then."""
    from nodewright_agent.runtime.images.progress import Meter

    console, meter = stderr(), Meter(title)
    if not console.is_terminal:
        finished: set[str] = set()
        told = time.monotonic()

        def line(step: PullProgress) -> None:
            nonlocal told
            meter.take(step)
            if step.state in ("done", "exists") and step.layer not in finished:
                finished.add(step.layer)
                what = "already here" if step.state == "exists" else human_bytes(step.total)
                console.print(f"  {step.layer[:19]}: {what}", markup=False)
            elif time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                console.print(f"  {meter.read().text}", markup=False)

        yield line
        return
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[layers]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(title), total=None, layers="")

        def bar(step: PullProgress) -> None:
            meter.take(step)
            now = meter.read()
            layers = f"{now.layers_done} of {now.layers} layers"
            progress.update(task, completed=now.bytes, total=now.total or None, layers=layers)

        yield bar


def _show(images: list[Image], output: Format, pulls: Sequence[PullUnderWay] = ()) -> None:
    if output is not Format.TABLE:
        emit([*map(_document, images), *map(_pull_document, pulls)], output)
        return
    rows = []
    for image in images:
        # by repository@digest where there is no tag, and the bare id for an image without any name
        for name in image.names or image.digests or ["<none>"]:
            rows.append((name.replace("[", r"\["), image.id.partition(":")[2][:12], human_bytes(image.size)))
    for pull in pulls:
        by = f" ({pull.by})" if pull.by else ""
        rows.append((pull.image.replace("[", r"\["), "pulling", f"{pull.text}{by}"))
    print_table(("image", "id", "size"), rows)


def _document(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "names": image.names,
        "digests": image.digests,
        "size": image.size,
        "layers": len(image.layers),
    }


def _pull_document(pull: PullUnderWay) -> dict[str, Any]:
    """A pull in the shape of an image: it has no id yet, and says under `pull` how far it is."""
    progress = {
        "by": pull.by,
        "pid": pull.pid,
        "started": pull.started,
        "bytes": pull.bytes,
        "total": pull.total,
        "layersDone": pull.layers_done,
        "bytesPerSecond": round(pull.rate),
    }
    return {"id": "", "names": [pull.image], "digests": [], "size": 0, "layers": pull.layers, "pull": progress}
