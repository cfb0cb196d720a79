"""The answers of the server, by address."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import markupsafe
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from maed.plots import charts
from maed.records import Score
from maed.registry import TASKS
from maed.report import web
from maed.report.interactive import interactive
from maed.report.tables import duration
from maed.run_folder import AUTOENCODER, StageFolder
from maed.server.pages import Pages
from maed.server.progress import Part
from maed.server.runs import Overview, find_runs, overview
from maed.settings import ReportSettings

_HERE = Path(__file__).parent / "served"

_MOST = 8
"""Most runs side by side."""

_LISTED = 200
"""Most parts of a run that its progress lists."""

_HTML = "text/html"


def answer(
    body: str | bytes,
    status: int = HTTPStatus.OK,
    kind: str = _HTML,
    *,
    scripts: tuple[str, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response of which a browser runs these scripts and no others, and that no other page shows in a frame."""
    policy = f"{web.policy(scripts)}; connect-src 'self'; frame-ancestors 'none'"
    content = body.encode("utf-8", "replace") if isinstance(body, str) else body
    return Response(content, status, {"Content-Security-Policy": policy, **(headers or {})}, kind)


class Site:
    """The pages by their addresses. Runs are looked up among those that were found: no address becomes a path.

    Args:
        root: Resolved; nothing outside of it is read.
        settings: Settings of the runs' pages.
        scratch: An empty folder that may be written in.
    """

    def __init__(self, root: Path, settings: ReportSettings, scratch: Path) -> None:
        self.root, self.pages = root, Pages(settings, scratch)
        self._templates = web.templates(_HERE)
        self._templates.filters["ago"] = ago
        self._templates.globals["query"] = lambda *names: urlencode([("run", name) for name in names])
        self.routes = [
            Route("/", self._index),
            Route("/run", self._run),
            Route("/compare", self._compare),
            Route("/live", self._live),
            Route("/live.json", self._progress),
        ]
        self.faults = {
            HTTPStatus.NOT_FOUND: lambda *_: self.message(HTTPStatus.NOT_FOUND, "There is no such page."),
            Exception: lambda *_: answer("Internal Server Error\n", HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain"),
        }

    def message(
        self,
        status: HTTPStatus,
        text: str,
        *,
        title: str = "",
        run: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """A page that says one thing, and leads to the progress of `run` where one is given."""
        title = title or status.phrase
        return self._page("message.html.j2", status=status, headers=headers or {}, title=title, text=text, run=run)

    def _index(self, request: Request) -> Response:
        runs = [self._seen(name, folder) for name, folder in find_runs(self.root).items()]
        going = sum(run.state == "going on" for run in runs)
        scripts = (web.script("page.js"), web.script("index.js", _HERE))
        return self._page(
            "index.html.j2", scripts, title=self.root.name or str(self.root), runs=runs, going=going, most=_MOST
        )

    async def _run(self, request: Request) -> Response:
        names = request.query_params.getlist("run")
        if len(names) != 1:
            return self.message(HTTPStatus.BAD_REQUEST, "The address names no run, or more than one.")
        return await self._explorer(names)

    async def _compare(self, request: Request) -> Response:
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        if not 2 <= len(names) <= _MOST:
            return self.message(HTTPStatus.BAD_REQUEST, f"Two to {_MOST} runs can be compared: tick them in the list.")
        return await self._explorer(names)

    async def _explorer(self, names: list[str]) -> Response:
        """The page of the first run, the others beside it; one that takes long is announced, and asked for again."""
        runs = await run_in_threadpool(find_runs, self.root)
        seen = [await run_in_threadpool(self._seen, name, runs[name]) for name in names if name in runs]
        if len(seen) < len(names):
            return self._unknown()
        for run in seen:
            if run.state == "damaged":
                title = f"{run.name} is damaged"
                return self.message(HTTPStatus.INTERNAL_SERVER_ERROR, run.reason, title=title)
            if not run.explorable:
                text = "Nothing of it can be explored yet: no stage is finished."
                return self.message(HTTPStatus.OK, text, title=run.name, run=run.name)
        signature = "".join(run.signature for run in seen)
        built = await self.pages.get({run.name: runs[run.name] for run in seen}, signature)
        if built is None:
            text = "What other reductions and estimators make of it is computed once, which can take a minute."
            headers = {"Refresh": "2"}
            title = f"The page of {' and '.join(names)} is being built"
            return self.message(HTTPStatus.ACCEPTED, text, title=title, headers=headers)
        if isinstance(built, str):
            title = f"{' and '.join(names)}: no page can be made"
            return self.message(HTTPStatus.INTERNAL_SERVER_ERROR, built, title=title)
        return answer(built, scripts=(*map(web.script, web.SCRIPTS), web.plotly()))

    def _live(self, request: Request) -> Response:
        run = self._one(request)
        if run is None:
            return self._unknown()
        scripts = (web.script("page.js"), web.script("live.js", _HERE))
        data = web.inlined({"live": f"/live.json?{urlencode({'run': run.name})}"})
        return self._page("live.html.j2", scripts, plotly=web.plotly(), title=run.name, run=run, data=data)

    def _progress(self, request: Request) -> Response:
        run = self._one(request)
        if run is None:
            return answer("{}", HTTPStatus.NOT_FOUND, "application/json")
        return answer(json.dumps(progress(run, find_runs(self.root)[run.name])), kind="application/json")

    def _one(self, request: Request) -> Overview | None:
        names, runs = request.query_params.getlist("run"), find_runs(self.root)
        return self._seen(names[0], runs[names[0]]) if len(names) == 1 and names[0] in runs else None

    def _seen(self, name: str, folder: Path) -> Overview:
        """A run as it is; damaged where no page could be made of just what is there."""
        run = overview(self.root, name, folder)
        wrong = self.pages.wrong((name,), run.signature)
        if wrong and run.state != "damaged":
            return Overview(name, "damaged", wrong, written=run.written, signature=run.signature)
        return run

    def _unknown(self) -> Response:
        return self.message(HTTPStatus.NOT_FOUND, "There is no such run in the folder that is served.")

    def _page(
        self,
        template: str,
        scripts: tuple[str, ...] = (),
        *,
        plotly: str | None = None,
        status: HTTPStatus = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        styles = [web.style("explorer.css"), web.style("served.css", _HERE)]
        given = {"styles": styles, "scripts": scripts, "plotly": plotly, "data": markupsafe.Markup("{}"), **values}
        allowed = (*scripts, *([plotly] if plotly else []))
        text = self._templates.get_template(template).render(given)
        return answer(text, status, scripts=allowed, headers=headers)


def progress(run: Overview, folder: Path) -> dict[str, Any]:
    """Content of the page of a running run: plain values, and plotly figures of the current training."""
    current = run.current if run.state in ("going on", "stopped") else None
    shown = current or max(run.parts, key=lambda part: part.written, default=None)
    points: list[dict[str, Any]] = []
    if shown is not None and run.state != "damaged":
        points = StageFolder(folder / shown.name).work.history if shown.finished else list(shown.far.points)
        points = [point for point in points if "step" in point]
    title = "" if shown is None else shown.title
    task = "classification" if shown is None else shown.task
    metric = TASKS.get(task).metric.name
    loss = "masked loss" if shown is not None and shown.name == AUTOENCODER else "loss"
    far = None if current is None else current.far
    return {
        "state": run.state,
        "sentence": _sentence(run, current),
        "explorable": run.explorable,
        "share": far.step / far.steps if far is not None and far.step is not None and far.steps else None,
        "title": title,
        "rows": [_row(part, run.state) for part in run.parts[-_LISTED:]],
        "loss": interactive(charts.training({"": points}, loss)),
        "accuracy": interactive(charts.accuracy({"": [Score(title, 0, history=points, task=task, metric=metric)]})),
    }


def _sentence(run: Overview, current: Part | None) -> str:
    """The state of a run in a sentence."""
    if run.state == "damaged":
        return run.reason
    if run.state == "done":
        return f"This run has ended: {run.stage}."
    if current is None:
        what = "Between two stages"
    else:
        left = f"; {current.remaining}" if current.remaining and run.state == "going on" else ""
        what = f"{current.title}{current.progress}{left}"
    if run.state == "stopped":
        return f"{what}. Nothing was written for {ago(run.written).removesuffix(' ago')}: it was stopped, or is stuck."
    return f"{what}."


def _row(part: Part, state: str) -> list[str]:
    """A part as cells: what it is, its state, its step, its time."""
    if part.finished:
        return [part.title, "done", "", "" if part.seconds is None else duration(part.seconds)]
    left = part.remaining if state == "going on" else ""
    return [part.title, state, part.progress.removeprefix(", "), left]


def ago(moment: float) -> str:
    """The time since a moment (seconds since 1970), in words."""
    if not moment:
        return "–"
    seconds = max(0.0, time.time() - moment)
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return f"{int(seconds)} s ago"
