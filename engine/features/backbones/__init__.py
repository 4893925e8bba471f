"""Pretrained networks whose features can be stored: one declared function for each kind, in any module of this package."""

import importlib
import pkgutil

from engine.errors import SpecError, unknown_name
from engine.features.backbones.declared import Backbone, Request, declared_backbones

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Backbone", "backbone_help", "find_backbone", "is_backbone"]


def backbone_help() -> str:
    """How the backbones are written, in one line of help."""
    return ", ".join(kind.form for kind in declared_backbones().values())


def is_backbone(text: str) -> bool:
    """Whether --features names a kind of backbone, well written or not, and no file."""
    return text.partition(":")[0] in declared_backbones()


def find_backbone(text: str, download: bool = False) -> Backbone:
    """The backbone that --features names. Its weights are read when it is loaded, and not before.

    Args:   download: whether weights that are not on this machine may be fetched
    Raises: SpecError for an unknown name or a wrong form; SourceError when the file of its weights is not there
    """
    name, _, rest = text.partition(":")
    kinds = declared_backbones()
    if name not in kinds:
        raise SpecError(unknown_name("backbone", name, kinds, f"--features: {backbone_help()}, or a file of features"))
    return kinds[name].open(Request(text, rest, download))
