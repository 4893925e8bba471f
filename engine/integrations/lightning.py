"""Recording the dynamics of a Lightning training, published as a run when the fit ends.

trainer = Trainer(max_epochs=20, callbacks=[WinnowCallback("winnow-workspace", "cifar10", name="my resnet")])
trainer.fit(module, DataLoader(WithIds(images_and_labels), batch_size=128, shuffle=True))

def training_step(self, batch, batch_idx):                     # of the module
    images, labels, sample_ids = batch
    logits = self.network(images)
    loss = cross_entropy(logits, labels)
    return {"loss": loss, "logits": logits, "labels": labels, "sample_ids": sample_ids}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from typing import Any

from torch import Tensor

from engine.errors import ScoreInputError, SpecError
from engine.recorder import Outputs, Recorder

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    if error.name != "lightning":
        raise
    raise ModuleNotFoundError(
        "engine.integrations.lightning needs Lightning, which is not installed; pip install lightning", name=error.name
    ) from None

Read = Callable[[Any, Any], tuple[Tensor, Tensor, Tensor]]
"""(batch, what training_step returned) -> logits (B, C), labels (B,), sample_ids (B,)"""

_KEYS = ("logits", "labels", "sample_ids")


class WinnowCallback(Callback):
    """Records every training batch of one fit, on one device.

    Args:
        workspace, dataset, name, keep_logits, outputs: as of `Recorder`
        read: how a batch and what training_step returned for it give logits (B, C), labels (B,) and sample_ids (B,);
            None = training_step returns a dict with these keys
    Attributes:
        run_id: of the run that was published, None until the fit has ended

    Batches of validation and of the sanity check are not recorded. An epoch that max_steps cuts short is left out.
    A fit that fails or is interrupted publishes nothing.
    """

    def __init__(
        self,
        workspace: str | PathLike[str] | None,
        dataset: str,
        *,
        name: str = "lightning",
        keep_logits: bool = True,
        outputs: Outputs = "logits",
        read: Read | None = None,
    ) -> None:
        self._make = partial(Recorder, workspace, dataset, name=name, keep_logits=keep_logits, outputs=outputs)
        self._read = read or _from_dict
        self._recorder: Recorder | None = None
        self._batches = 0
        self.run_id: str | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            raise SpecError(
                f"WinnowCallback records on one device, the trainer has {trainer.world_size}; give it devices=1"
            )
        self.run_id, self._recorder, self._batches = None, self._make(), 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._recorder is not None
        self._recorder.log(*self._read(batch, outputs))
        self._batches += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._recorder is not None
        if self._batches >= trainer.num_training_batches or trainer.num_training_batches == float("inf"):
            self._recorder.end_epoch()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._recorder is not None
        self.run_id = self._recorder.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._recorder is not None:
            self._recorder.discard()


def _from_dict(batch: Any, outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    missing = [key for key in _KEYS if not isinstance(outputs, Mapping) or key not in outputs]
    if missing:
        raise ScoreInputError(
            f"training_step returned no {', '.join(missing)}; return a dict with loss, logits, labels and sample_ids, "
            "or give WinnowCallback a function: read=lambda batch, outputs: (logits, labels, sample_ids)"
        )
    logits, labels, sample_ids = (outputs[key] for key in _KEYS)
    return logits, labels, sample_ids
