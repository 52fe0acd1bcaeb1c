"""What the guide on serving says of limits, clients and units is so."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import softcam
from softcam.cli.program import create_parser
from softcam.imaging import Preprocessing

pytest.importorskip("fastapi", reason="the service comes with the extra `serve`")
pytest.importorskip("uvicorn", reason="the service comes with the extra `serve`")

from softcam.serving import Limits, create_app, open_models
from softcam.serving.gate import OPEN_PATHS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def find_blocks(language: str, begin: str = "") -> list[str]:
    return [text for text in re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S) if text.startswith(begin)]


def read_flags() -> dict[str, Any]:
    """Return the command's flags, and what it has without them."""
    options = create_parser().parse_args(["serve", "model"])["serve"]
    return {"--" + name.replace("_", "-"): value for name, value in options.items()}


def test_limits_are_those_of_the_service() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(--[\w-]+)`)? ?\| ([\d,]+) \|", TEXT, re.M)
    flags = read_flags()
    assert [name for name, _, _ in rows] == [entry.name for entry in fields(Limits)]
    for name, flag, value in rows:
        default = float(value.replace(",", ""))
        assert default == getattr(Limits(), name)
        if flag:
            unit = 1_000_000 if flag.startswith("--max-mega") else 1
            assert flags[flag] * unit == pytest.approx(default, rel=0.05)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, listen: Callable[..., Any]) -> Iterator[str]:
    black_box = softcam.create_black_box("timm:resnet10t", weights="none", num_classes=2).eval()
    folder = tmp_path_factory.mktemp("service") / "model"
    model = softcam.convert(black_box, images=torch.rand(2, 3, 64, 64))
    softcam.save(model, folder, preprocessing=Preprocessing(size=64).to_dict())
    with listen(create_app(open_models([str(folder)], backend="torch"))) as found:
        yield found


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_the_client_in_python_works(address: str, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = find_blocks("py", "import httpx")
    exec(code.replace(ADDRESS, address), {})  # noqa: S102 - the project's own document
    assert "model;dur=" in capsys.readouterr().out


CURLS = [line for text in find_blocks("bash") for line in text.splitlines() if line.startswith("curl ")]


@pytest.mark.parametrize("line", CURLS)
def test_the_client_in_a_shell_works(address: str, image: Path, line: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(shlex.split(line.replace(ADDRESS, address)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(("{", "["))


def test_the_token_that_is_made_is_long_enough(tmp_path: Path) -> None:
    (line,) = [line for text in find_blocks("bash") for line in text.splitlines() if line.startswith("python -c")]
    command, _, file = line.rpartition(" > ")
    words = shlex.split(command)
    token = subprocess.run(
        [shutil.which("python3") or "python3", *words[1:]], capture_output=True, text=True, check=True
    )
    assert file == "token"
    assert softcam.serving.Access("0.0.0.0", token.stdout.strip()).token  # noqa: S104 - what is tested


def test_the_unit_of_systemd_is_a_command_and_hardened(tmp_path: Path) -> None:
    (text,) = find_blocks("ini")
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    service = parser["Service"]
    command = service["ExecStart"].replace("\\\n", " ").replace("%d", "/run/credentials").replace("%S", "/var/lib")
    words = shlex.split(command)
    options = create_parser().parse_args(words[1:])["serve"]
    assert words[0].endswith("/softcam")
    # Of a folder, systemd hands over each file under the credential's name and its own.
    credentials = Path("/run/credentials") / service["LoadCredential"].partition(":")[0]
    assert options.token_file == Path(f"{credentials}_token")
    assert options.record == Path(f"{credentials}_key.pem")
    assert options.store == Path("/var/lib") / service["StateDirectory"]
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictNamespaces"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert {"MemoryMax", "TasksMax"} <= set(service)
    assert int(service["TimeoutStopSec"]) > 30, "longer than the service takes to answer what was asked"
    if (program := shutil.which("systemd-analyze")) is not None:
        unit = tmp_path / "softcam.service"
        unit.write_text(text.replace("/opt/softcam/bin/softcam", "/bin/true"), encoding="utf-8")
        done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        assert "Unknown" not in done.stderr


def test_the_composition_is_confined() -> None:
    (text,) = find_blocks("text", "services:")
    service = yaml.safe_load(text)["services"]["softcam"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - of the container
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "SOFTCAM_TOKEN" in service["environment"]


def test_probes_ask_what_needs_no_token() -> None:
    (text,) = find_blocks("text", "apiVersion:")
    pod = yaml.safe_load(text)
    (container,) = pod["spec"]["containers"]
    probes = [value["httpGet"] for name, value in container.items() if name.endswith("Probe")]
    assert len(probes) == 3
    for probe in probes:
        assert probe["path"] in OPEN_PATHS
        assert probe["port"] == container["ports"][0]["containerPort"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["terminationGracePeriodSeconds"] > 30


def test_a_proxy_hands_on_the_name_and_as_much_as_is_allowed() -> None:
    (text,) = find_blocks("nginx")
    assert "proxy_set_header Host $host;" in text
    assert "client_max_body_size 64m;" in text
    assert text.count("{") == text.count("}")


def test_what_is_said_to_be_tested_is() -> None:
    tests = (ROOT / "tests" / "integration" / "test_hostile_clients.py").read_text(encoding="utf-8")
    section = TEXT.partition("## What it withstands")[2]
    cells = [row.split(" | ")[-1] for row in re.findall(r"^\| (?!how|---).*$", section, re.M)]
    for name in re.findall(r"`([\w.]+)`", " ".join(cells[1:])):
        if name.endswith(".py"):
            assert (ROOT / "tests" / "unit" / "serving" / name).is_file()
        else:
            assert re.search(rf"def test_\w*{name}", tests), name
