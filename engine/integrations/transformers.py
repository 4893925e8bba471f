"""Recording the dynamics of a Hugging Face Trainer, published as a run when the training ends.

trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir, remove_unused_columns=False),
    train_dataset=WithIds(items),                              # items are dicts such as {"pixel_values", "labels"}
    callbacks=[WinnowCallback("winnow-workspace", "cifar10", name="my vit")],
)
trainer.train()
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from os import PathLike
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from engine.errors import ScoreInputError, SpecError
from engine.recorder import Outputs, Recorder

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import has_length
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise ModuleNotFoundError(
        "engine.integrations.transformers needs Hugging Face's transformers, which is not installed; "
        "pip install transformers accelerate",
        name=error.name,
    ) from None


class WinnowCallback(TrainerCallback):
    """Records every training batch of one `train()`, on one device.

    The batches hold `sample_ids` (as those of `WithIds` over items that are dicts), which are taken out before the
    model sees them; the model returns a mapping with `logits`, as the models of transformers do. Labels that the
    Trainer keeps from the model, as for label smoothing, are those of the ingested dataset.

    Args:
        workspace, dataset, name, keep_logits, outputs: as of `Recorder`
    Attributes:
        run_id: of the run that was published, None until the training has ended

    Batches of evaluation and prediction are not recorded, and their datasets need no ids; after the training they must
    hold none, because nothing takes them out then. An epoch that max_steps cuts short is left out. A training that
    fails publishes nothing.
    """

    def __init__(
        self,
        workspace: str | PathLike[str] | None,
        dataset: str,
        *,
        name: str = "transformers",
        keep_logits: bool = True,
        outputs: Outputs = "logits",
    ) -> None:
        self._make = partial(Recorder, workspace, dataset, name=name, keep_logits=keep_logits, outputs=outputs)
        self._recorder: Recorder | None = None
        self._hooks: list[RemovableHandle] = []
        self._sample_ids: Tensor | None = None
        self._batches = 0
        self.run_id: str | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        devices = max(args.world_size, args.n_gpu)
        if devices > 1:
            raise SpecError(
                f"WinnowCallback records on one device, the Trainer has {devices}; start it with one "
                "(CUDA_VISIBLE_DEVICES=0)"
            )
        if args.remove_unused_columns:
            raise SpecError(
                "the Trainer drops sample_ids before the callback sees them; give "
                "TrainingArguments(remove_unused_columns=False)"
            )
        self._end()  # of a training that failed
        self.run_id, self._recorder = None, self._make()
        model: nn.Module = kwargs["model"]
        self._hooks = [
            model.register_forward_pre_hook(self._take_ids, with_kwargs=True),
            model.register_forward_hook(self._record, with_kwargs=True),
        ]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._batches = 0

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self._recorder is not None
        loader = kwargs["train_dataloader"]
        if not has_length(loader) or self._batches >= len(loader):
            self._recorder.end_epoch()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self._recorder is not None
        try:
            self.run_id = self._recorder.close()
        finally:
            self._end()

    def _take_ids(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before the model is called: its inputs without the sample ids."""
        kwargs = dict(kwargs)
        self._sample_ids = kwargs.pop("sample_ids", None)
        return args, kwargs

    def _record(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """After the model was called."""
        if not model.training or self._recorder is None:
            return
        if self._sample_ids is None:
            raise ScoreInputError("the batch holds no sample_ids; wrap the training dataset: WithIds(dataset)")
        if not isinstance(output, Mapping) or "logits" not in output:
            raise ScoreInputError("the model returned no logits; it must return a mapping with the key 'logits'")
        labels = kwargs.get("labels")
        if labels is None:
            labels = self._recorder.labels[self._sample_ids.cpu()]
        self._recorder.log(output["logits"], labels, self._sample_ids)
        self._batches += 1

    def _end(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._recorder is not None:
            self._recorder.discard()
            self._recorder = None
