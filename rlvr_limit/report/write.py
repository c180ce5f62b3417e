"""One call from a Study to a folder: the page, its figures as PNG, its numbers as CSV and JSON."""

from __future__ import annotations

from pathlib import Path

from rlvr_limit.report import figures
from rlvr_limit.report.analysis import analyse
from rlvr_limit.report.page import build
from rlvr_limit.report.study import Study, check
from rlvr_limit.report.tables import write_numbers
from rlvr_limit.types import UserError


def write(study: Study, folder: Path) -> Path:
    """Write index.html, *.png, *.csv and *.json into folder (made if missing) and return the page's path.

    The page is written last, so a page that is there is whole. Raises UserError where the study contradicts itself
    or the folder cannot be written.
    """
    check(study)
    found = analyse(study)
    folder = Path(folder)
    drawn = {name: draw for name, draw in figures.FIGURES.items() if figures.has_data(name, study)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = write_numbers(study, found, folder)
        images = {}
        for name, draw in drawn.items():
            images[name], image = figures.render(draw, study, found)
            (folder / f"{name}.png").write_bytes(image)
            files[f"{name}.png"] = f"the figure of {name}, light, 160 dots per inch"
        page = folder / "index.html"
        page.write_text(build(study, found, images, files), encoding="utf-8")
    except OSError as error:
        raise UserError(f"report folder {folder}: cannot be written ({error.strerror}); give one that can") from error
    return page
