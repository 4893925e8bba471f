"""One dataset in Python: its samples, scores and flags as frames, its runs, what people decided, its exports."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import SpecError, WinnowError

if TYPE_CHECKING:
    import pandas as pd

    from engine.queries.frames import Run
    from engine.queries.versions import NamedVersion
    from engine.queries.writers import Decisions, Link
    from engine.store.decisions import Action
    from engine.store.progress import Listener
    from engine.store.workspace import Workspace


class Dataset:
    """One dataset of a workspace, and what its runs found.

    Methods that read a run take `run`: a Run, its id or the first digits of it; None = the one to trust most of those that
    have what is read. Frames have `sample_id` as a column: `dataset.samples().merge(dataset.flags())` joins them.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace, self.name = workspace, name

    def samples(self) -> pd.DataFrame:
        """Every sample: sample_id, split (train or test), label, true_label, class_name, source (a path).

        true_label is Int64, <NA> where the true label is unknown; a row per sample, by sample_id.
        """
        from engine.queries.connection import connected
        from engine.queries.frames import fetch_samples

        with connected(self._workspace, self.name, []) as connection:
            return fetch_samples(connection)

    def scores(self, run: str | Run | None = None, *, long: bool = False) -> pd.DataFrame:
        """The scores of the training samples: sample_id and one column per score, float32; a row per sample.

        Args:   long: a row per score and sample instead: score, sample_id, value, rank (0 = easiest)
        Raises: NotFoundError when no run has scores
        """
        return self._find("scores", run).scores(long=long)

    def flags(self, run: str | Run | None = None, *, long: bool = False) -> pd.DataFrame:
        """Which samples look mislabeled: sample_id, flagged, flagged_RULE ...; a row per judged sample.

        flagged (bool): on the shortlist, <NA> in a run without a verdict; flagged_RULE (bool): that rule flags it

        Args:   long: a row per rule and sample instead: rule, score, sample_id, flagged, threshold, value
        Raises: NotFoundError when no run has flags
        """
        return self._find("flags", run).flags(long=long)

    def epochs(self, run: str | Run | None = None) -> pd.DataFrame:
        """How the training went: seed, epoch, train_loss (nats), train_accuracy, test_accuracy (0..1), lr, seconds.

        Raises: NotFoundError when no run trained a network
        """
        return self._find("epochs", run).epochs()

    def runs(self) -> pd.DataFrame:
        """The published runs, newest first: run_id, kind, title, created_at, seconds, dynamics_run, notes (JSON)."""
        from engine.queries.connection import connected
        from engine.queries.summaries import fetch_runs

        with connected(self._workspace, self.name) as connection:
            return fetch_runs(connection)

    def evaluate(self, run: str | Run | None = None) -> pd.DataFrame:
        """How well scores and rules find the mislabeled, where the truth is known; the best first.

        Columns: run_id, name, kind (score or rule), and shares 0..1: roc_auc, average_precision, precision_at_recall_95, ... of
        a score, flagged_share, precision, recall of a rule. None = of all runs.
        """
        from engine.queries.connection import connected
        from engine.queries.summaries import fetch_evaluation

        if run is not None:
            return self._own(run).evaluate()
        with connected(self._workspace, self.name) as connection:
            return fetch_evaluation(connection)

    def query(self, sql: str) -> pd.DataFrame:
        """The rows of a query over the views of the dataset and its runs; `FROM (SHOW TABLES)` lists the views.

        Raises: SpecError unless it is one statement that only reads; WinnowError for a mistake in it, or when it takes
                more than 60 s or 2 GB
        """
        from engine.queries.connection import connected
        from engine.queries.views import comment_views
        from engine.store.sql import fetch_answer

        with connected(self._workspace, self.name) as connection:
            comment_views(connection)
            return fetch_answer(connection, sql)[0]

    def run(
        self,
        *,
        device: str = "auto",
        cluster: str = "",
        progress: bool = True,
        **options: str | Sequence[str] | float | bool | None,
    ) -> Run:
        """Train, record the dynamics, score every sample and publish the run, or find it published.

        Interrupted, the same call goes on where it was.

        Args:   device: auto, cpu or cuda; cluster: as `winnow run --cluster`; progress: show how far it is; options:
                those of `winnow run`, such as model="cnn", epochs=20, seeds=3, scores="aum,el2n" or ["aum", "el2n"],
                preset="aum-cifar10-fast"
        Raises: SpecError for an unknown option or value; Cancelled when somebody stopped it (`winnow cancel`)
        """
        from engine.runs.options import plan_run_from
        from engine.training.device import pick_device

        spec = plan_run_from(self._workspace, self.name, options, pick_device(device))
        return self._compute(spec, device, cluster, progress)

    def psi(
        self,
        *,
        device: str = "auto",
        cluster: str = "",
        progress: bool = True,
        **options: str | Sequence[str] | float | bool | None,
    ) -> Run:
        """Prune by an order, train again, test: the data-pruning curve, whose points are `Run.psi`.

        Args:   device, cluster, progress: as for `run`; options: those of `winnow psi`, such as orders="random,el2n*",
                points=10, seeds=3
        Raises: SpecError for an unknown option or order, or when no run has the scores of an order
        """
        from engine.runs.options import plan_psi_from

        return self._compute(plan_psi_from(self._workspace, self.name, options), device, cluster, progress)

    def prove(
        self,
        *,
        device: str = "auto",
        cluster: str = "",
        progress: bool = True,
        **options: str | float | bool | None,
    ) -> Run:
        """Train networks on the curated set and on the full one, side by side: what is gained is `Run.gain()`.

        Args:   device, cluster, progress: as for `run`; options: those of `winnow prove`, such as where="NOT flagged",
                drop_shortlist=True, seeds=5, epochs=10. Without where or drop_shortlist the set is what people decided
        Raises: SpecError for an unknown option, or when no decision changes anything
        """
        from engine.runs.options import plan_prove_from

        spec, curated = plan_prove_from(self._workspace, self.name, options)
        return self._compute(spec, device, cluster, progress, curated)

    def relabel(
        self,
        method: str,
        *,
        device: str = "auto",
        cluster: str = "",
        progress: bool = True,
        **options: str | Sequence[float] | float | bool | None,
    ) -> Run:
        """Propose other labels for samples, each with a confidence: `Run.suggestions()`. No label is changed.

        Args:   method: vote, neighbors, sop+, dividemix, debug or rop; device, cluster, progress: as for `run`; options: those
                of `winnow relabel`, such as keep=[0.2, 0.8], learner="sop+", epochs=40, run="3fa2..."
        Raises: SpecError for an unknown method, learner or option, or when a subset has lost a class
        """
        from engine.runs.options import plan_relabel_from

        return self._compute(plan_relabel_from(self._workspace, self.name, method, options), device, cluster, progress)

    def export(
        self,
        to: str | PathLike[str],
        where: str = "true",
        format: str = "",
        run: str | Run | None = None,
        split: str = "train",
        *,
        decisions: Decisions = "apply",
        version: str = "",
        scores: str | Sequence[str] = (),
        link: Link = "copy",
        thumbnails: bool = False,
        progress: bool = False,
    ) -> tuple[int, int]:
        """Write the samples of a split (train, test or all) that meet a condition to a file or a folder, with its manifest.

        Args:    to: the file or folder; where: SQL over the columns of samples, scores and metadata by name, flagged, action:
                 "NOT flagged AND aum > 0"; format: as `winnow export --format`, "" = by the file's ending; decisions: apply =
                 leave out what was dropped and write what was relabeled under its new label, ignore = all as given; version:
                 of the curated set, whose samples and labels are taken; scores: to be columns, "all" = all; link: copy,
                 hardlink or symlink, how images get into a folder; thumbnails: write the thumbnail where an original cannot
                 be read; progress: show how far it is
        Returns: (kept, all) numbers of samples
        Raises:  SpecError for an unknown format; WinnowError for a mistake in the SQL, and for originals that are gone
        """
        from engine.data.exporting import export_set
        from engine.queries.writers import Choice, find_writer

        chosen = None if run is None else self._own(run).id
        named = (scores,) if isinstance(scores, str) else tuple(scores)
        choice = Choice(where, split, chosen, decisions, tuple(name for name in named if name))
        with listening(self.name, progress) as listen:
            done = export_set(
                self._workspace,
                self.name,
                choice,
                Path(to),
                find_writer(format, Path(to)),
                version=version,
                link=link,
                thumbnails=thumbnails,
                listen=listen or (lambda stage, share, left: None),
            )
        return done.kept, done.total

    def decide(
        self,
        sample_ids: Sequence[int],
        action: Action,
        new_label: int | Sequence[int] | None = None,
        note: str = "",
        author: str = "",
    ) -> int:
        """Decide about samples: keep, drop, unsure, or relabel with a new label. `undo` takes the whole call back.

        Args:    sample_ids: a list, an array or a column of a frame; new_label: one for all, or one for each; author:
                 who decides
        Returns: the number of the decision
        Raises:  SpecError for an unknown action, sample or label
        """
        from engine.store.decisions import decide

        return decide(self._workspace, self.name, sample_ids, action, new_label=new_label, note=note, author=author)

    def undo(self, author: str | None = None) -> int | None:
        """Take back the latest decision of an author, None: of anybody. Returns its number, or None when there is none."""
        from engine.store.decisions import undo

        return undo(self._workspace, self.name, author)

    def decisions(self) -> pd.DataFrame:
        """The latest decision per sample: sample_id, action, new_label, note, author, decided_at (UTC),
        disputed (the latest decisions of its authors differ)."""
        from engine.store.decisions import fetch_decisions_log

        return fetch_decisions_log(self._workspace, self.name)

    def disagreements(self) -> pd.DataFrame:
        """The latest decision per sample and author, of the samples about which people differ; columns as `decisions`."""
        from engine.store.decisions import fetch_disagreements

        return fetch_disagreements(self._workspace, self.name)

    def create_version(self, name: str, **recipe: Any) -> NamedVersion:
        """Name the set that a recipe gives now, and keep it: which training samples stay, and with which label.

        Args:   recipe: drop=["aum < 0"] (SQL conditions), drop_shortlist=True, relabel_above=0.9, decisions=False, unsure=
                "keep" or "drop", run="3fa2...", note="...", author="..."
        Raises: SpecError for an option that is not allowed, or when there is a version of that name
        """
        from engine.queries.versions import NamedVersion, create_version

        return NamedVersion(self._workspace, create_version(self._workspace, self.name, name, **recipe))

    def versions(self) -> pd.DataFrame:
        """The versions, the oldest first: name, created_at (UTC), author, note, hash, and their numbers, such as kept."""
        import pandas as pd

        from engine.store.versions import stored_versions

        found = stored_versions(self._workspace, self.name)
        columns = ["name", "created_at", "author", "note", "hash"]
        rows = [{**{column: getattr(version, column) for column in columns}, **version.facts} for version in found]
        return pd.DataFrame(rows, columns=None if rows else columns)

    def version(self, name: str) -> NamedVersion:
        """One version; NotFoundError, with the nearest name, when there is none."""
        from engine.queries.versions import NamedVersion
        from engine.store.versions import stored_version

        return NamedVersion(self._workspace, stored_version(self._workspace, self.name, name))

    def _compute(self, spec: Any, device: str, cluster: str, progress: bool, curated: Any = None) -> Run:
        from engine.queries.frames import Run
        from engine.runs.compute import compute

        with listening(self.name, progress) as listen:
            run_id, _ = compute(self._workspace, spec, device, listen, cluster, curated)
        return Run(self._workspace, run_id)

    def _find(self, view: str, run: str | Run | None) -> Run:
        """The run given, else of those with rows in a view the one to trust most."""
        from engine.queries.frames import find_best

        return find_best(self._workspace, self.name, view) if run is None else self._own(run)

    def _own(self, run: str | Run) -> Run:
        """The run given; SpecError when it is of another dataset."""
        from engine.queries.frames import find_run

        found = find_run(self._workspace, run)
        if found.dataset != self.name:
            raise SpecError(
                f"run {found.id} is of dataset '{found.dataset}', not of '{self.name}'; .runs() lists its runs"
            )
        return found

    def __repr__(self) -> str:
        from engine.queries.connection import connected, runs_of
        from engine.queries.summaries import fetch_classes

        try:
            with connected(self._workspace, self.name, []) as connection:
                classes = fetch_classes(connection)
            train, test, runs = classes["train"].sum(), classes["test"].sum(), len(runs_of(self._workspace, self.name))
        except WinnowError as error:  # removed since, or damaged: a repr must not raise
            return f"<Dataset {self.name}: {error}>"
        size = f"{train:,} training and {test:,} test samples of {len(classes)} classes"
        return f"<Dataset {self.name}: {size}, {runs} run{'s' if runs != 1 else ''}>"

    def _repr_html_(self) -> str:
        return html.escape(repr(self)[1:-1])


@contextlib.contextmanager
def listening(title: str, progress: bool) -> Iterator[Listener | None]:
    """What a computation reports to: a progress bar, or nothing."""
    if not progress:
        yield None
        return
    from engine.cli.console import progress_bar

    with progress_bar(title) as listen:
        yield listen
