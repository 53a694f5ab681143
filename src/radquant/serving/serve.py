"""Serving a model or checkpoint: by the engine's own server, or by our endpoint."""

import contextlib
import ipaddress
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import cast

from radquant import registry
from radquant.errors import UserError
from radquant.generation.engines.kind import Address, Engine, Wanted
from radquant.settings import engines

VLLM_KEY = "VLLM_API_KEY"  # the variable from which vLLM's server reads its key


def serve(
    engine_name: str,
    wanted: Wanted,
    address: Address,
    max_new_tokens: int,
    batch_size: int,
    dry_run: bool = False,
    key: str | None = None,
    deadline: float = 600,
) -> None:
    """Serve until Ctrl-C or SIGTERM. An engine's own server takes this process over.

    max_new_tokens: most tokens of an answer whose request does not say, by our endpoint.
    batch_size: answers that it writes at once.
    dry_run: only print the command of the engine's own server.
    key: that clients must show; None: none. deadline: seconds that a request may take.
    """
    check_key(key)
    if wanted.chat_template and not wanted.chat_template.is_file():
        raise UserError(f"the chat template {wanted.chat_template} does not exist; check the path")
    first = engines.meant(engine_name)[0]
    engine = cast(Engine, registry.load_kind(registry.ENGINES, first))
    command = engine.server(wanted, address)
    if dry_run and command is None:
        raise UserError(f"--dry-run prints vLLM's command; engine {engine_name} has none")
    warn_if_open(address.host, key is not None)
    if command is None:
        serve_here(engine_name, wanted, address, max_new_tokens, batch_size, key, deadline)
        return
    print(shown(command.variables, command.words), flush=True)
    secret = {} if key is None else {VLLM_KEY: key}  # which is not printed
    if not dry_run:
        os.execve(command.words[0], command.words, {**os.environ, **command.variables, **secret})


def check_key(key: str | None) -> None:
    """Raise UserError for a key that no client could send."""
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise UserError(
            "the API key must be of ASCII characters, at least one, without spaces around them"
        )


def serve_here(
    engine_name: str,
    wanted: Wanted,
    address: Address,
    max_new_tokens: int,
    batch_size: int,
    key: str | None,
    deadline: float,
) -> None:
    """Answer until Ctrl-C or SIGTERM; a second one does not wait for the answers at hand."""
    from radquant.generation.opening import open_precision
    from radquant.serving.answering import served
    from radquant.serving.http_server import open_server

    engine, opened = open_precision(engine_name, wanted)
    model = served(engine, opened, address.name, max_new_tokens, batch_size)
    server = open_server(model, address.host, address.port, key, deadline)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = f"http://{address.host}:{server.port}"
    how = f"{opened.engine}, {opened.kernel} kernel, torch.{opened.dtype}"
    print(f"{address.name} ({how}) at {place}; Ctrl-C ends", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()


def warn_if_open(host: str, keyed: bool) -> None:
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside:
        who = "whoever has the API key may use this server"
        if not keyed:
            who = f"whoever reaches {host} may use this server, which asks for no API key"
        print(f"warning: {who}; it encrypts nothing", file=sys.stderr)


def shown(variables: Mapping[str, str], words: Sequence[str]) -> str:
    """The command as one would type it."""
    return " ".join([*(f"{name}={value}" for name, value in variables.items()), shlex.join(words)])
