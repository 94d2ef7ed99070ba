"""Whether the server runs with the dashboard's settings, and what to say to everybody where it does not.

Streamlit reads ``.streamlit/config.toml`` beside the script that it is told to run. Where another script runs ours, or
the file is lost, its own defaults hold: every network interface, the inside of errors on the page, usage statistics.
Headers that bind the browser come only from `dashboard/serve.py`, so what others can reach is started by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from streamlit import config

from dashboard import guard, settings

_TELLING = ("server.address", "client.showErrorDetails", "browser.gatherUsageStats")
"""Settings of ours that reach beyond this machine; nobody chose where they are at Streamlit's own defaults."""


def refusal() -> str:
    """Why nothing may be served here, and what to do; "" where all is well."""
    if fault := settings.fault():
        return fault
    if config.get_option("global.appTest"):  # no server at all
        return ""
    lost = [name for name in _TELLING if config.get_where_defined(name) == config.ConfigOption.DEFAULT_DEFINITION]
    return refusal_of(config.get_option("server.address"), lost, guard.installed())


def refusal_of(address: str | None, lost: Sequence[str], guarded: bool) -> str:
    """The same, by what is known of the server.

    Args:
        address: that it listens on; None is every one.
        lost: settings of ours that nobody chose: neither our file, nor an option, nor the environment.
        guarded: whether it answers with the headers of `dashboard.guard`.
    """
    if (guarded and not lost) or _is_local(address):
        return ""
    ours = f"the dashboard's settings ({', '.join(lost)})"
    lacking = ours if lost else "what keeps a page from loading others' files"
    return (
        f"This server can be reached from other machines, and it runs without {lacking}. Nothing is shown. Start it "
        "with `cxr-lens dashboard`; to serve others on purpose, add --server.address=0.0.0.0 and set up sign-in as "
        "docs/deploy.md says."
    )


def _is_local(address: str | None) -> bool:
    if address is None:
        return False
    if address == "localhost" or address.startswith("unix:"):
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
