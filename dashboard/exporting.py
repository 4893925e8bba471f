"""Taking a set out of the workspace: downloads of what is small, and writing on the server, with a bar, of the rest."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from dashboard import data
from dashboard.data import View, exports
from dashboard.markup import command_line, plain

STARTED = "winnow_export"
MOST = 200_000
"""Samples that a browser is given at most: a download lies in the server's memory before it is sent."""


def downloads(view: View, wanted: exports.Export, kept: int, name: str) -> None:
    """A button for every format that is one file."""
    if kept > MOST:
        st.caption(f"More than {MOST:,} samples are not downloaded: write them on the server, or by the command below.")
        return
    judged = data.verdict(view.at, view.run_id) is not None
    with st.container(horizontal=True):
        for writer in exports.WRITERS.values():
            if writer.write_file is None or (writer.name == "cleanlab" and not judged):
                continue
            st.download_button(
                writer.title,
                partial(exports.file_bytes, view.at, wanted, writer.name),
                f"{name}{writer.ending}",
                writer.media_type,
                icon=":material/download:",
                help=f"{writer.holds}. Read by {writer.read_by}.",
                on_click="ignore",
                key=f"download_{writer.name}",
            )


def writing(view: View, words: list[str]) -> None:
    """The form that writes any format into the workspace's folder of exports, and how far that is."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="export_form"):
        formats = sorted(exports.WRITERS, key=lambda name: exports.WRITERS[name].write_folder is None)
        format = st.selectbox(
            "Format", formats, format_func=lambda name: exports.WRITERS[name].title, key="export_format", width=220
        )
        writer = exports.WRITERS[format]
        link = "copy"
        if writer.images and format != "hf":
            link = st.selectbox(
                "Images",
                ["copy", "hardlink", "symlink"],
                format_func={"copy": "copied", "hardlink": "hard links", "symlink": "symbolic links"}.__getitem__,
                key="export_link",
                width=160,
            )
        options = ["--link", link] if link != "copy" else []
        if writer.images and st.checkbox(
            "Thumbnails for lost originals",
            key="export_thumbnails",
            help="Without it, an export whose originals are gone or changed is refused, and they are counted and named.",
        ):
            options += ["--thumbnails"]
        started: data.Started | None = st.session_state.get(STARTED)
        if st.button(
            "Write",
            icon=":material/drive_folder_upload:",
            disabled=started is not None and started.running,
            key="write",
        ):
            to = exports.free_path(view.at, writer)
            st.session_state[STARTED] = data.start([*words, "--format", format, *options, "--to", str(to)])
            st.rerun()
    st.caption(f"{plain(writer.holds)}. Read by {plain(writer.read_by)}.")
    if STARTED in st.session_state:
        st.fragment(_bar, run_every="1s" if st.session_state[STARTED].running else None)()


def _bar() -> None:
    """How far an export is, and where it lies when it is done."""
    started: data.Started = st.session_state[STARTED]
    to = Path(started.words[-1])
    if started.running:
        with st.container(horizontal=True, vertical_alignment="center"):
            share = exports.share_done(started)
            st.progress(share, text=f"Writing {plain(to)} · {100 * share:.0f} %", width="stretch")
            st.button("Stop", icon=":material/stop:", key="export_stop", on_click=exports.stop, args=(started,))
        return
    if message := started.message():
        st.error(plain(message), icon=":material/error:")
    elif to.exists():
        st.success(plain(exports.words_of(started) or f"written to {to}"), icon=":material/check:")
    else:
        st.info("It was stopped; nothing was written.", icon=":material/info:")
    st.code(command_line(started.words), language="bash", wrap_lines=True)
