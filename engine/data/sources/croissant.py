"""Croissant metadata of one Parquet file, as `winnow export` writes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.data.exported import read_json, require_file
from engine.data.parts import Source
from engine.data.sources.kinds import Named, source
from engine.data.sources.parquet import parquet
from engine.errors import SourceError
from engine.store.atomic import sha256_of

METADATA = "croissant.json"


@source(
    "Croissant (croissant.json, or its folder)",
    matches=lambda named: (metadata_file(named.path)).is_file(),
    priority=25,
)
def croissant(named: Named) -> Source:
    """Croissant metadata of one Parquet file beside it, whose hash it names: that file, read as any other."""
    return parquet(replace(named, text=str(samples_file(metadata_file(named.path)))))


def metadata_file(path: Path) -> Path:
    """Where the metadata is that a path names: itself, or the file in the folder that it is."""
    return path if path.name == METADATA else path / METADATA


def samples_file(metadata: Path) -> Path:
    """The file with the samples; SourceError when there is another number of them, or it is not the one that is described."""
    content = read_json(metadata)
    files = content.get("distribution") if isinstance(content, dict) else None
    about = files[0] if isinstance(files, list) and len(files) == 1 and isinstance(files[0], dict) else {}
    name, wanted = about.get("contentUrl"), about.get("sha256")
    if not isinstance(name, str) or not name.endswith(".parquet") or Path(name).name != name or "\0" in name:
        raise SourceError(f"{metadata} does not describe one Parquet file beside it; allowed: what winnow export wrote")
    require_file(file := metadata.with_name(name))
    if sha256_of(file) != wanted:
        raise SourceError(f"{file} is not the file that {METADATA} describes: it was changed since; export it again")
    return file
