"""The browser of the tests: Chromium as Debian, or whoever made this machine, has it.

`python -m tests.e2e.browser.chromium` installs it where it is missing and this user may.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATH_VARIABLE = "SNUGNET_CHROMIUM"
REQUIRED_VARIABLE = "SNUGNET_BROWSER_REQUIRED"
# Read here and now: no variable of ours reaches a test.
GIVEN = os.environ.get(PATH_VARIABLE, "")
IS_REQUIRED = os.environ.get(REQUIRED_VARIABLE, "") not in ("", "0")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    return GIVEN or next(filter(None, map(shutil.which, NAMES)), None)


def install() -> str:
    """Why there still is none; empty where there is one."""
    if find():
        return ""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return (
            "no Chromium is here, and only root may install it by apt-get; "
            f"{PATH_VARIABLE} names one elsewhere"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        done = subprocess.run(
            ["apt-get", "-qq", *arguments], env=environment, capture_output=True, text=True
        )
        # Of several sources one may be out of reach, and Chromium in another.
        if done.returncode and "install" in arguments:
            return f"apt-get could not install Chromium: {done.stderr.strip()[-300:]}"
    return "" if find() else "apt-get installed no Chromium that is found by its name"


def main() -> int:
    reason = install()
    if not reason:
        return 0
    print(f"{reason}; the tests in a browser will be skipped", file=sys.stderr)
    return 1 if IS_REQUIRED else 0


if __name__ == "__main__":
    sys.exit(main())
