"""Figures of CG's appendices (Ki, Choi and Chung): classes, other networks, densities before noise, features by epoch."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard import charts, data
from dashboard.charts import BLUE, GRAY, GREEN, GRID, PURPLE, VERMILION, new_figure
from dashboard.figures.cg_paper import pruning_figure
from dashboard.figures.declare import paper_figure
from dashboard.figures.needs import Needs
from dashboard.figures.panels import add_line, panels
from dashboard.markup import chart_text

SHOWN_CLASSES, SHOWN_IMAGES = 4, 10
"""Classes looked at, and images from either end of each."""

EPOCHS = (1, 3, 5, 10, 20)
"""After which the features of figure 18 are taken, as far as a training goes."""


@paper_figure(
    "cg-5",
    title="How fast random subsets converge",
    caption="Correlation of the stochastic complexity gap with the exact one, by how many random subsets it is the mean of.",
)
def convergence(needs: Needs) -> go.Figure | None:
    """Figure 5: Spearman's and Pearson's correlation by the number of subsets, a line for each size of them."""
    at = needs.view.at
    run_id, found = needs.scores("cg")
    study = data.gap_study(at, run_id) if found else None
    if found and study is None:
        needs.lacks("No random subsets were compared yet.", f"winnow gap {at.dataset} --run {run_id}")
    if study is not None and study.convergence.empty:
        needs.lacks(
            "With so few classes, a subset with as many samples of the others as of one class is the whole set.", ""
        )
        return None
    return None if study is None else convergence_figure(study.convergence)


def convergence_figure(table: pd.DataFrame) -> go.Figure:
    """Spearman's (left) and Pearson's (right) correlation with the exact gap by the number of subsets, a line per ratio.

    Args: table with ratio (samples of other classes for each of a class), runs, spearman, pearson
    """
    figure = panels(["Spearman", "Pearson"], legend=True, share_y=True)
    for (ratio, some), color in zip(table.groupby("ratio"), _COLORS * len(table), strict=False):
        for col, column in ((1, "spearman"), (2, "pearson")):
            add_line(
                figure, col, some["runs"], some[column], f"1 : {ratio:g}", color, axis="subsets", mode="lines+markers"
            )
    figure.update_xaxes(title="random subsets")
    figure.update_yaxes(title="correlation with the exact gap", col=1)
    return figure


@paper_figure(
    "cg-8",
    title="Classes by a score",
    caption="Mean and standard deviation of each class; its images with the highest and the lowest scores, of the two "
    "classes of the lowest and the two of the highest mean. CG 9 is the same of ImageNet.",
)
def classes(needs: Needs) -> go.Figure | None:
    """Figures 8 and 9: scores of classes, and images from both ends of four of them."""
    at = needs.view.at
    score = next((s for s in ("cg", "aum") if data.having(at, "score", (s,))[0]), "cg")
    run_id, found = needs.scores(score)
    if not found:
        return None
    means = data.figure_table(at, "fetch_class_scores", run_id, score)
    labels = means["label"].tolist()
    chosen = tuple(labels if len(labels) <= SHOWN_CLASSES else [*labels[:2], *labels[-2:]])
    bins = data.figure_table(at, "fetch_class_histograms", run_id, score, chosen)
    ends = data.figure_table(at, "fetch_class_ends", run_id, score, chosen, SHOWN_IMAGES)
    images = data.figure_table(at, "fetch_thumbnails", tuple(ends["sample_id"].tolist()))
    return class_figure(score, means, bins, ends.merge(images, on="sample_id"), chosen)


def class_figure(
    score: str, means: pd.DataFrame, bins: pd.DataFrame, ends: pd.DataFrame, chosen: Sequence[int]
) -> go.Figure:
    """(a) mean and standard deviation of a score in each class; (b) its histogram and images from both ends in some.

    Args: means with label, class_name, n, mean, spread, in the order in which they are drawn; bins with label, left, right,
          n; ends with label, highest (bool), place (0, 1, ...), thumbnail (WebP); chosen: labels of the classes of (b)
    """
    names = dict(zip(means["label"], means["class_name"], strict=True))
    count = len(chosen)
    figure = make_subplots(
        rows=3,
        cols=count,
        specs=[[{"colspan": count}, *[None] * (count - 1)], [{}] * count, [{}] * count],
        row_heights=[0.36, 0.3, 0.34],
        subplot_titles=["(a) mean and standard deviation of every class", *(chart_text(names[c]) for c in chosen)],
        horizontal_spacing=0.03,
        vertical_spacing=0.11,
        figure=new_figure(760, top=34),
    )
    figure.update_annotations(font={"size": 15})
    figure.add_scatter(
        x=[chart_text(name) for name in means["class_name"]],
        y=means["mean"],
        error_y={"array": means["spread"], "color": charts.with_alpha(BLUE, 0.4), "thickness": 1.5, "width": 0},
        mode="markers",
        marker={"color": [VERMILION if c in chosen else BLUE for c in means["label"]], "size": 7},
        customdata=means[["n", "spread"]],
        hovertemplate="%{x}<br>mean %{y:.4g}, standard deviation %{customdata[1]:.4g}, %{customdata[0]:,} samples<extra></extra>",
        name=score,
        row=1,
        col=1,
    )
    figure.update_xaxes(type="category", showticklabels=len(means) <= 40, row=1, col=1)
    figure.update_yaxes(title=chart_text(score), row=1, col=1)
    for col, label in enumerate(chosen, start=1):
        some = bins[bins["label"] == label]
        figure.add_bar(
            x=(some["left"] + some["right"]) / 2,
            y=some["n"],
            width=some["right"] - some["left"],
            marker={"color": BLUE, "line": {"width": 0}},
            name=chart_text(names[label]),
            hovertemplate=f"{chart_text(score)} %{{x:.3g}}<br>%{{y:,}} samples<extra></extra>",
            row=2,
            col=col,
        )
        _add_images(figure, ends[ends["label"] == label], col)
    figure.update_xaxes(matches="x2", row=2)
    figure.update_yaxes(matches="y2", showticklabels=False, row=2)
    figure.update_yaxes(showticklabels=True, row=2, col=1)
    figure.update_xaxes(visible=False, row=3, range=[0, SHOWN_IMAGES / 2])
    figure.update_yaxes(visible=False, row=3, range=[0, 5.6])
    figure.update_yaxes(title="samples", row=2, col=1)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, row=1)
    figure.update_layout(bargap=0)
    return figure


def _add_images(figure: go.Figure, ends: pd.DataFrame, col: int) -> None:
    """The images of one class: two lines with the highest scores, below them two with the lowest."""
    columns = SHOWN_IMAGES // 2
    for highest, top, words in ((True, 5.6, "highest"), (False, 2.8, "lowest")):
        figure.add_annotation(
            x=0, y=top, text=words, showarrow=False, xanchor="left", yanchor="top", font={"size": 12}, row=3, col=col
        )
        for row in charts.rows(ends[ends["highest"] == highest]):
            figure.add_layout_image(
                source=f"data:image/webp;base64,{base64.b64encode(row.thumbnail).decode()}",
                x=row.place % columns + 0.04,
                y=top - 0.6 - row.place // columns,
                sizex=0.92,
                sizey=0.92,
                row=3,
                col=col,
            )


@paper_figure(
    "cg-10",
    title="Pruning with another network",
    caption="Figure CG 2 of another network than the first: the scores say something of the data where the trend is the same.",
)
def pruning_of_another(needs: Needs) -> go.Figure | None:
    """Figure 10: curves of a network other than that of the first curves."""
    first, others = other_networks(data.networks_of_curves(needs.view.at))
    image = len(data.dataset_facts(needs.view.at)["input_shape"]) == 3
    other = "mlp" if first != "mlp" else "cnn" if image else "linear"
    return _pruning(needs, others, f"--model {other}", "There are no curves of another network.")


def other_networks(networks: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The network of the first curves that were computed ("" where there are none), and the curves of others.

    Args: networks with run_id and model, the newest curves first
    """
    first = str(networks["model"].iloc[-1]) if len(networks) else ""
    return first, networks[networks["model"] != first]


@paper_figure(
    "cg-11",
    title="Pruning what a pretrained network is tuned on",
    caption="Figure CG 2 of networks on the features of a pretrained one, in place of the fine-tuned ViT of the paper.",
)
def pruning_of_pretrained(needs: Needs) -> go.Figure | None:
    """Figure 11: curves of networks that are trained on stored features."""
    networks = data.networks_of_curves(needs.view.at)
    text = "There are no curves of networks on the features of a pretrained one."
    return _pruning(needs, networks[networks["pretrained"].astype(bool)], "--features efficientnet_lite0", text)


def _pruning(needs: Needs, networks: pd.DataFrame, option: str, text: str) -> go.Figure | None:
    """The curves of the newest of some psi runs that has an order by a score.

    option: of the run whose scores are pruned by; text: what is missing where there is none
    """
    for row in charts.rows(networks):
        points = data.psi_points([row.run_id])
        points = points[points["sampler"].isin(["random", "ascending", "descending"])]
        if points["score"].notna().any():
            needs.runs.append(row.run_id)
            figure = pruning_figure(points)
            figure.update_yaxes(title=f"test accuracy of {chart_text(row.model)}", col=1)
            return figure
    dataset = needs.view.at.dataset
    command = f"winnow run {dataset} {option} --scores el2n,forgetting"
    curve = (
        f"winnow psi {dataset} --orders 'random,el2n,el2n*,forgetting,forgetting*' --points 10 --seeds 3 --steps fixed"
    )
    needs.lacks(text, f"{command}\n{curve}")
    return None


@paper_figure(
    "cg-14",
    title="The complexity gap before and after noise",
    caption="Density of the complexity gap under the clean labels, and under the noisy ones.",
)
def densities(needs: Needs) -> go.Figure | None:
    """Figure 14: the densities of CG in the clean dataset and in the one with label noise."""
    noisy, clean = needs.noisy_and_clean()
    if not noisy or not clean:
        needs.lacks_noise()
        return None
    bins: dict[str, pd.DataFrame] = {}
    for name in (clean, noisy):
        run_id, found = needs.scores("cg", dataset=name)
        if found:
            bins[name] = data.histogram(data.snapshot(name), run_id, "cg")
    return density_figure(bins) if len(bins) == 2 else None


def density_figure(bins: Mapping[str, pd.DataFrame]) -> go.Figure:
    """A panel per dataset: the density of CG of all its samples, of clean and of mislabeled ones; each has the area 1.

    Args: bins: by dataset, with left, right, clean, mislabeled, unknown (samples)
    """
    figure = panels(list(bins), legend=True)
    for col, table in enumerate(bins.values(), start=1):
        center, width = (table["left"] + table["right"]) / 2, table["right"] - table["left"]
        right = table["clean"] + table["unknown"]
        for counts, name, color in ((right, "clean", BLUE), (table["mislabeled"], "mislabeled", VERMILION)):
            if counts.sum():
                figure.add_bar(
                    x=center,
                    y=counts / counts.sum() / width,
                    width=width,
                    name=name,
                    legendgroup=name,
                    showlegend=name not in {trace.name for trace in figure.data},
                    marker={"color": color, "line": {"width": 0}},
                    opacity=0.65,
                    hovertemplate=f"{name}<br>cg %{{x:.3g}}<extra></extra>",
                    row=1,
                    col=col,
                )
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title="cg")
    figure.update_xaxes(matches="x")
    figure.update_yaxes(title="density", col=1)
    return figure


@paper_figure(
    "cg-18",
    title="The complexity gap of features, epoch by epoch",
    caption="Rank correlation of the gap of features after an epoch with the gap of the inputs and with learned scores.",
)
def features_by_epoch(needs: Needs) -> go.Figure | None:
    """Figure 18: Spearman's rank correlation of cg_feature after each epoch with other scores."""
    at, dataset = needs.view.at, needs.view.at.dataset
    last = int(data.training(at, needs.view.run_id).get("epochs", EPOCHS[-1]))
    wanted = [f"cg_feature@{epoch}" for epoch in EPOCHS if epoch <= last]
    others = ("cg", "el2n", "forgetting", "consistency")
    run_id, found = data.having(at, "score", wanted)
    if len(found) < 2:
        command = f"winnow run {dataset} --scores {','.join([*others[:3], *wanted])}"
        needs.lacks("No run has the complexity gap of features after several epochs.", command)
        return None
    needs.runs.append(run_id)
    correlations = data.spearman(at, run_id)
    return epoch_figure(correlations, others)


def epoch_figure(correlations: pd.DataFrame, others: Sequence[str]) -> go.Figure:
    """A line per score: its rank correlation with cg_feature after each epoch.

    Args: correlations: scores by scores, higher = harder; cg_feature@EPOCH among them
    """
    found = {int(match[1]): name for name in correlations.index if (match := re.fullmatch(r"cg_feature@(\d+)", name))}
    columns = [name for name in correlations.columns if name.partition("@")[0] in others]
    figure = panels([""], 440, legend=True)
    for name, color in zip(columns, _COLORS * len(columns), strict=False):
        values = [float(correlations[name][found[epoch]]) for epoch in sorted(found)]
        add_line(figure, 1, sorted(found), values, name, color, axis="epoch", mode="lines+markers")
    figure.update_xaxes(title="epoch of the features")
    figure.update_yaxes(title="Spearman with cg_feature")
    return figure


_COLORS = [BLUE, VERMILION, GREEN, PURPLE, GRAY]
