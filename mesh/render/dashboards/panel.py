"""Panels and dashboards, and their conversion to Grafana's JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from grafana_foundation_sdk.builders import common, dashboard, logs, loki, prometheus, stat
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from mesh.render.dashboards.sources import LOKI, PROMETHEUS, reference

HEIGHT = 8
STAT_HEIGHT = 4
WIDTH = 24


class Unit(StrEnum):
    """Units by Grafana's names."""

    CALLS = "reqps"
    SECONDS = "s"
    SHARE = "percentunit"
    BYTES = "bytes"
    BYTES_RATE = "Bps"
    COUNT = "short"


@dataclass(frozen=True)
class Chart:
    """
    A time series panel.

    Args:
        title: Title of the panel.
        queries: PromQL queries by the legend of their series.
        unit: Unit of all series.
        limit: Threshold line, such as an objective.
        exemplars: Whether to show exemplars, which link to traces.
        span: Width in columns of 24.
        about: Description of the panel.
    """

    title: str
    queries: Mapping[str, str]
    unit: Unit = Unit.COUNT
    limit: float | None = None
    exemplars: bool = False
    span: int = 8
    about: str = ""


@dataclass(frozen=True)
class Figure:
    """A stat panel: the current value of one query."""

    title: str
    query: str
    unit: Unit = Unit.COUNT
    span: int = 4
    legend: str = ""
    about: str = ""


@dataclass(frozen=True)
class Lines:
    """Log lines that match a LogQL query."""

    title: str
    query: str
    span: int = WIDTH


Panel = Chart | Figure | Lines


@dataclass(frozen=True)
class Board:
    """A dashboard: titled rows of panels."""

    uid: str
    title: str
    about: str
    rows: Sequence[tuple[str, Sequence[Panel]]]

    def to_json(self) -> str:
        """Return the dashboard as JSON that Grafana imports."""
        made = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.about)
            .tags(["amarre"])
            .time("now-3h", "now")
            .refresh("30s")
            .timezone("browser")
            .readonly()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .link(
                dashboard.DashboardLink("AMARRE")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags(["amarre"])
                .as_dropdown(True)  # noqa: FBT003 - the SDK's signature
                .keep_time(True)  # noqa: FBT003
            )
        )
        number = 0
        for title, panels in self.rows:
            made = made.with_row(dashboard.Row(title))
            for panel in panels:
                number += 1
                made = made.with_panel(_builder(panel).id(number))
        return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def none(rate: str, label: str) -> str:
    """Return zero, labelled ``none``, where *rate* has data: no errors are shown as zero."""
    return f'label_replace(sum({rate}) * 0, "{label}", "none", "", "")'


def _builder(panel: Panel) -> series.Panel | stat.Panel | logs.Panel:
    if isinstance(panel, Chart):
        return _chart(panel)
    return _figure(panel) if isinstance(panel, Figure) else _lines(panel)


def _chart(panel: Chart) -> series.Panel:
    made = (
        series.Panel()
        .title(panel.title)
        .description(panel.about)
        .datasource(reference(PROMETHEUS))
        .unit(panel.unit)
        .span(panel.span)
        .height(HEIGHT)
        .min(0)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)  # noqa: FBT003 - the SDK's signature
        )
    )
    if panel.limit is not None:
        made = made.thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(None, "green"), models.Threshold(panel.limit, "red")])
        ).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphTresholdsStyleMode.DASHED)
        )
    for number, (legend, query) in enumerate(panel.queries.items()):
        target = _query(query, legend, number).range()
        made = made.with_target(target.exemplar(panel.exemplars))
    return made


def _figure(panel: Figure) -> stat.Panel:
    return (
        stat.Panel()
        .title(panel.title)
        .description(panel.about)
        .datasource(reference(PROMETHEUS))
        .unit(panel.unit)
        .span(panel.span)
        .height(STAT_HEIGHT)
        .no_value("none")
        .with_target(_query(panel.query, panel.legend, 0).instant())
    )


def _lines(panel: Lines) -> logs.Panel:
    query = loki.Dataquery().expr(panel.query).ref_id("A").datasource(reference(LOKI))
    return (
        logs.Panel()
        .title(panel.title)
        .datasource(reference(LOKI))
        .span(panel.span)
        .height(HEIGHT)
        .show_time(True)  # noqa: FBT003 - the SDK's signature
        .wrap_log_message(True)  # noqa: FBT003
        .with_target(query)
    )


def _query(expr: str, legend: str, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(expr)
        .legend_format(legend)
        .ref_id(chr(ord("A") + number))
        .datasource(reference(PROMETHEUS))
    )
