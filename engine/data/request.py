"""What `winnow ingest` takes: the options, declared once. Importing it loads nothing heavy: the command line does."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from engine.errors import SpecError
from engine.fields import check_options, option

TrueLabels = Literal["keep", "drop"]


def check_dataset_name(name: str) -> None:
    """Raise SpecError unless the name is safe as a file name on every system."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise SpecError(
            f"dataset name {name!r}; allowed: up to 64 letters, digits, '-', '_' and '.', a letter or digit first"
        )


@dataclass(frozen=True)
class IngestSpec:
    """One `winnow ingest`: which samples, and what is done to their labels. source, test: as `open_source` reads them."""

    name: str
    source: str
    test: str | None = option(None, introduced=None, help="A second source for the test split.")
    test_fraction: float | None = option(
        None,
        introduced=None,
        low=0,
        high=0.9,
        help="Share held out for testing where the source has no test split.",
        unset="0.2",
    )
    labels: str | None = option(
        None,
        introduced=None,
        metavar="FILE:COLUMN",
        help="Given labels from a column of a CSV or Parquet file, in the source's order.",
    )
    true_labels: TrueLabels = option(
        "keep",
        introduced="keep",
        choices=TrueLabels,
        help="With --labels: keep the source's labels as the true ones, or drop them (keep, drop).",
    )
    noise: str | None = option(
        None,
        introduced=None,
        metavar="KIND:RATE",
        help="On the training split: {noise}.",
    )
    superclasses: str | None = option(
        None, introduced=None, metavar="A,B;C,D", help="Groups of classes for superclass noise."
    )
    seed: int = option(0, introduced=0, low=0, high=2**63 - 1, help="Of the noise, the split and the limit.")
    limit: int | None = option(
        None,
        introduced=None,
        low=2,
        high=2**31 - 1,
        help="Training samples to keep, drawn evenly over the classes; of the test split the same share.",
    )
    columns: str | None = option(
        None,
        introduced=None,
        metavar="ROLE=NAME",
        help="Columns of a CSV or Parquet file that are path, label, true_label or split under other names: label=breed.",
    )
    metadata: str = option(
        "all",
        introduced="all",
        metavar="NAMES",
        help="Further columns to keep: all, none, or names separated by commas.",
    )
    originals: str | None = option(
        None,
        introduced=None,
        metavar="FOLDER",
        help="Where images may lie that a table or a link names outside of its own folder.",
    )
    add: bool = option(
        False, introduced=False, help="Add what is new in the source to the dataset of that name, if it is there."
    )
    skip_bad: bool = option(False, introduced=False, help="Pass over unreadable samples, and list them.")
    image_size: int | None = option(
        None,
        introduced=None,
        low=4,
        high=256,
        hint="pixels a side",
        help="Side in pixels that networks see.",
        unset="as stored up to 64, else 64",
    )

    def __post_init__(self) -> None:
        check_dataset_name(self.name)
        check_options(self)
        if self.test is not None and self.test_fraction is not None:
            raise SpecError("--test and --test-fraction were both given; choose one")
        from engine.data.columns import parse_wanted
        from engine.data.noise import reads
        from engine.data.noise_matrix import matrix_files

        parse_wanted(self.columns, self.metadata)
        if self.noise is not None:
            matrix_files(self.noise)
        if reads(self.noise, "confusions") and self.parent is None:
            raise SpecError(
                f"instance noise trains networks on samples that are in the workspace; ingest {self.name}-clean without "
                f"noise, then {self.name} --from dataset:{self.name}-clean --noise {self.noise}"
            )
        if self.superclasses is not None and not reads(self.noise, "groups"):
            raise SpecError("--superclasses goes with --noise superclass:RATE; give both or neither")
        if self.labels is not None:
            from engine.data.label_column import split_labels

            split_labels(self.labels)
        if self.parent is not None:
            self._check_derived()

    @property
    def parent(self) -> str | None:
        """The dataset this one derives from, when the source is dataset:NAME."""
        kind, colon, name = self.source.partition(":")
        return name if colon and kind == "dataset" else None

    def _check_derived(self) -> None:
        given = {
            "--test": self.test is not None,
            "--test-fraction": self.test_fraction is not None,
            "--limit": self.limit is not None,
            "--skip-bad": self.skip_bad,
            "--image-size": self.image_size is not None,
            "--columns": self.columns is not None,
            "--metadata": self.metadata != "all",
            "--originals": self.originals is not None,
            "--add": self.add,
        }
        given_flags = [flag for flag, is_given in given.items() if is_given]
        if given_flags:
            raise SpecError(
                f"{given_flags[0]} cannot go with {self.source}: a derived dataset has the same samples; leave it out"
            )
        if self.noise is None and self.labels is None:
            raise SpecError(f"{self.source} alone would be the same dataset again; add --noise or --labels")

    def to_json(self) -> dict[str, Any]:
        """As stored and compared: paths made absolute, without --add and --originals, which do not say what to make."""
        from engine.data.label_column import split_labels
        from engine.data.noise_matrix import resolve_noise
        from engine.data.sources import resolve

        content = asdict(self)
        del content["add"], content["originals"]
        content["source"] = resolve(self.source)
        content["test"] = None if self.test is None else resolve(self.test)
        if self.labels is not None:
            path, column = split_labels(self.labels)
            content["labels"] = f"{path.resolve()}:{column}"
        content["noise"] = None if self.noise is None else resolve_noise(self.noise)
        return content
