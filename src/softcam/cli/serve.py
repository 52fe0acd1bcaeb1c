"""`softcam serve`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from softcam.cli.console import say, telling
from softcam.cli.parsing import add_checks

SUMMARY = "Serve models over HTTP, with the viewer"
EXAMPLES = """\
  softcam serve model
  softcam serve retina=run/model chest=other/model --port 8080
  SOFTCAM_TOKEN=... softcam serve model --host 0.0.0.0 --certificate server.pem --key server.key
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("models", type=str, nargs="+", metavar="MODEL", help="model folders, each also as name=folder")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on; others need a token")
    parser.add_argument("--port", type=int, default=8000, help="TCP port; 0 for any that is free")
    parser.add_argument("--token-file", type=Path, default=None, help="file with the token; default: SOFTCAM_TOKEN")
    parser.add_argument("--allow-host", type=str, nargs="*", default=[], help="names by which clients may call it")
    parser.add_argument("--certificate", type=Path, default=None, help="TLS certificate chain, in PEM")
    parser.add_argument("--key", type=Path, default=None, help="key of the certificate, in PEM")
    parser.add_argument(
        "--rate", type=float, default=None, help="requests per second and client; default: 20, on loopback no limit"
    )
    parser.add_argument("--max-megabytes", type=float, default=64.0, help="largest body of a request")
    parser.add_argument("--max-megapixels", type=float, default=50.0, help="largest image")
    parser.add_argument("--max-waiting", type=int, default=128, help="requests at a time; others are told to come back")
    parser.add_argument("--header-seconds", type=float, default=10.0, help="for the header of a request")
    parser.add_argument("--body-seconds", type=float, default=30.0, help="for the body of a request")
    parser.add_argument("--decode-seconds", type=float, default=20.0, help="for decoding one image")
    parser.add_argument(
        "--decoders", type=int, default=None, help="processes that decode images; default: one per core"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="most images in one forward pass")
    parser.add_argument(
        "--backend", choices=["onnxruntime", "torch", "openvino", "auto"], default="onnxruntime", help="what runs them"
    )
    add_checks(parser)
    parser.add_argument("--store", type=Path, default=None, help="folder to keep predictions in; default: keep nothing")
    parser.add_argument("--record", type=Path, default=None, metavar="KEY", help="signs what is kept; key.pem")
    parser.add_argument("--quiet", action="store_true", help="log warnings and errors alone")
    parser.add_argument("--config", action="config", help="YAML file with these options")


def run(options: Any) -> int:
    """Serve until told to stop."""
    from softcam.predict import Checks
    from softcam.records import load_signer
    from softcam.serving import (
        Access,
        Limits,
        Listening,
        ServiceSettings,
        choose_backend,
        create_app,
        open_models,
        run_service,
    )

    access = Access(options.host, _read_token(options.token_file), tuple(options.allow_host), options.rate)
    if access.rate is None and not access.is_local:
        access = replace(access, rate=20.0)
    limits = Limits(
        max_bytes=round(options.max_megabytes * 1_000_000),
        max_pixels=round(options.max_megapixels * 1_000_000),
        max_waiting=options.max_waiting,
        header_seconds=options.header_seconds,
        body_seconds=options.body_seconds,
        decode_seconds=options.decode_seconds,
    )
    signer = None if options.record is None else load_signer(options.record)
    decoders = {} if options.decoders is None else {"decoders": options.decoders}
    settings = ServiceSettings(access, limits, store=options.store, signer=signer, **decoders)
    listening = Listening(options.port, options.certificate, options.key, verbose=not options.quiet)
    backend = choose_backend(options.backend)
    if backend != options.backend:
        say(f"{options.backend} is not used here (a GPU, or the extra `onnx` is missing); torch runs the models")
    with telling("softcam.predict"):
        checks = Checks.of_inputs(options.checks)
        if backend != "torch" and options.checks == "refuse":
            say("images are refused by size and intensity; by their features as well with --backend torch")
            checks = replace(checks, features="warn")
        models = open_models(options.models, batch_size=options.batch_size, backend=backend, checks=checks)
    for model in models:
        say(f"{model.name}: {model.architecture or 'own architecture'}, {model.predictor.backend_reason}")
    if not access.is_local and options.certificate is None:
        say("without TLS the token and the images can be read on the way; give --certificate, or put a proxy before it")
    app = create_app(models, settings)
    run_service(app, settings, listening, started=lambda address: say(f"softcam: open {address}"))
    return 0


def _read_token(file: Path | None) -> str:
    if file is None:
        return os.environ.get("SOFTCAM_TOKEN", "").strip()
    return file.read_text(encoding="utf-8").strip()
