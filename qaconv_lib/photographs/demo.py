"""The demo: a page in the browser that compares pictures (chapter 14).

The server answers this machine alone unless it is told otherwise, keeps uploads for minutes, and
tells the browser to ask nothing of other hosts.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import os
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaconv_lib.photograph_commands import add_model_options, known_for, printable

if TYPE_CHECKING:
    from qaconv_lib.photographs.demo_answers import Answers

PORT = 7860
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; form-action 'self'"
)
#: What Gradio 5 has its page fetch from elsewhere.
_OUTSIDE = re.compile(
    rb"<link\s[^>]*preconnect[^>]*>|<script\s[^>]*src=\"https?:[^>]*>\s*</script>"
)


def load_gradio(folder: str | os.PathLike[str]) -> Any:
    """Import Gradio, with its reports and its record of runs switched off.

    Args:
        folder: where uploads lie while they are kept.

    Raises:
        ImportError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = os.fspath(folder)
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            'the demo needs Gradio: pip install -e ".[demo]" in the folder of the book, or '
            "pip install gradio"
        ) from error
    return gradio


def make_server(
    gr: Any, answers: Answers, *, local: bool = True, on_stop: Callable[[], None] = lambda: None
) -> Any:
    """The server of the demo, a `uvicorn.Server`; its `run` takes an open socket.

    Args:
        gr: from `load_gradio`.
        answers: what the page asks.
        local: it is for this machine alone, and answers only to this machine's names.
        on_stop: what is done last.
    """
    import fastapi
    import uvicorn
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from qaconv_lib.photographs.demo_page import build_page, look, look_is_served
    from qaconv_lib.photographs.demo_uploads import MAX_BYTES

    @contextlib.asynccontextmanager
    async def life(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        on_stop()

    app = fastapi.FastAPI(lifespan=life, openapi_url=None)
    if local:
        names = ["localhost", "127.0.0.1", "::1", "[::1]"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    app.add_middleware(_Secluded)
    own: dict[str, Any] = {"footer_links": ["gradio"], **look(gr)}
    gr.mount_gradio_app(
        app,
        build_page(gr, answers, local=local),
        path="/",
        max_file_size=MAX_BYTES,
        allowed_paths=[],
        show_error=False,
        ssr_mode=False,
        **(own if look_is_served(gr) else {"show_api": False}),
    )
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config)


class _Secluded:
    """Middleware that forbids the page, and keeps it from, asking other hosts for anything."""

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Callable, send: Callable) -> None:
        head: dict[str, Any] = {}  # of a page, until all of it is there
        body = bytearray()

        async def send_on(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kind = dict(message["headers"]).get(b"content-type", b"")
                if kind.startswith(b"text/html"):
                    head.update(message)
                    return
            if not head:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = _OUTSIDE.sub(b"", bytes(body))
            fields = [field for field in head["headers"] if field[0] != b"content-length"]
            fields.append((b"content-length", str(len(page)).encode()))
            fields.append((b"content-security-policy", _POLICY.encode()))
            await send({**head, "headers": fields})
            await send({"type": "http.response.body", "body": page})

        await self.app(scope, receive, send_on)


def add_demo(subparsers: argparse._SubParsersAction) -> None:
    """``demo``: a page in the browser."""
    parser = subparsers.add_parser(
        "demo",
        help="a page in the browser that compares pictures",
        description="Serve a page on which pictures are uploaded and compared, two of them or one "
        "with a gallery. It is for this machine alone unless --host says otherwise. The model that "
        "comes with the book was trained on drawn people and is not fit for photographs of real "
        "people; name one of your own with --model.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"port; 0 for any free one (default: {PORT})"
    )
    parser.add_argument(
        "--gallery", type=Path, default=None, help="folder that is searched if none is uploaded"
    )
    add_model_options(parser)
    parser.set_defaults(run=run_demo)


def run_demo(options: argparse.Namespace) -> None:
    """Serve the page until it is stopped."""
    folder = tempfile.TemporaryDirectory(prefix="qaconv-demo-", ignore_cleanup_errors=True)
    with folder, _listen(options.host, options.port) as place:
        print("loading ...", flush=True)
        try:
            gr = load_gradio(folder.name)
        except ImportError as error:
            raise ValueError(str(error)) from error
        answers = _answers(options, Path(folder.name))
        host, port = place.getsockname()[:2]
        local = ipaddress.ip_address(host).is_loopback
        server = make_server(gr, answers, local=local, on_stop=folder.cleanup)
        address = f"[{host}]" if ":" in host else host
        print(f"demo         http://{address}:{port} (stop it with Ctrl+C)")
        if not local:
            print(
                f"Note: whoever reaches port {port} of this machine can use the demo; it asks for "
                "no password, and what is sent to it can be read on the way."
            )
        if answers.warning:
            print(f"Note: {answers.warning}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[place])


def _answers(options: argparse.Namespace, folder: Path) -> Answers:
    """The model with the gallery, both checked before the page is there."""
    import matplotlib

    from qaconv_lib.photographs.demo_answers import Answers
    from qaconv_lib.photographs.files import check_photographs, list_photographs
    from qaconv_lib.photographs.matching import open_model

    matplotlib.use("Agg")  # figures are drawn in threads, and no window is wanted
    gallery = [] if options.gallery is None else list_photographs(options.gallery)
    check_photographs(gallery)
    model = open_model(options.model, options.device)
    return Answers(
        model,
        known_for(model, options),
        prior=options.prior,
        shipped=options.model is None,
        gallery=gallery,
        folder=options.gallery,
        store=folder / "maps",
    )


def _listen(host: str, port: int) -> socket.socket:
    """An open socket, so that a port that is taken is noticed before the work."""
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be between 0 and {2**16 - 1}, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} is taken; name another with --port, or 0 for any free one"
            ) from error
        raise ValueError(f"cannot listen at {printable(host)}, port {port}: {error}") from error
