"""The dashboard's pages without a browser, and the words on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamlit.testing.v1 import AppTest

from dashboard import settings
from dashboard.plain import shown
from tests import needs

APP = str(settings.REPOSITORY / "dashboard" / "app.py")

needs_bundles = needs.BUNDLES.unless(any(settings.bundles().glob("*/card.json")))


def open_page(name: str, **address: str | list[str]) -> AppTest:
    """Open a page of the app at an address."""
    app = AppTest.from_file(APP, default_timeout=300)
    if name != "read":  # it is the first page
        app.switch_page(f"app_pages/{name}.py")  # before the first run, as a link does
    for key, value in address.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def linked_bundles(folder: Path, *names: str, without: Sequence[str] = ()) -> Path:
    """Make a folder of links to the demo's bundles and files: to those named, or to all but some."""
    folder.mkdir()
    for source in settings.bundles().iterdir():
        gate = source.name.endswith("-gate.safetensors")  # beside the bundles, of a whole family
        if (not names or gate or source.name in names) and source.name not in without:
            (folder / source.name).symlink_to(source)
    return folder


def words_on(app: AppTest) -> str:
    """What a page says, as it is read."""
    kinds = (app.markdown, app.caption, app.header, app.info, app.success, app.warning, app.error)
    return shown("\n".join(str(each.value) for kind in kinds for each in kind))
