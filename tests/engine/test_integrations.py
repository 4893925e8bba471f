"""The callbacks for Lightning and Hugging Face's Trainer record what a loop with the plain Recorder does."""

import builtins
import importlib
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import engine
from engine.data.loader import load_split, normalization, to_float
from engine.errors import ScoreInputError
from engine.integrations.lightning import WinnowCallback as LightningCallback
from engine.integrations.transformers import WinnowCallback as TransformersCallback
from engine.recorder import Recorder, WithIds

BATCH, EPOCHS = 60, 3  # 200 samples: the last of 4 batches has 20

pytestmark = [
    # Lightning 2.6 asks torch what torch 2.15 calls deprecated, and wants more workers for these small loaders.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def build_network():
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def build_optimizer(network):
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)


@pytest.fixture
def data(small_workspace):
    """Inputs, labels and ids of the samples in an order of the loop's own, in which the file does not have them."""
    samples = load_split(small_workspace, "small", "train")
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(1))
    inputs = to_float(samples.inputs, *normalization(samples))[order]
    return inputs, samples.labels[order], order


def by_hand(root, data, accumulate):
    inputs, labels, ids = data
    loader = DataLoader(WithIds(TensorDataset(inputs, labels), ids), batch_size=BATCH)
    network = build_network()
    optimizer = build_optimizer(network)
    with Recorder(root, "small", name="by hand") as recorder:
        for _ in range(EPOCHS):
            for i, (images, given, sample_ids) in enumerate(loader):
                logits = network(images)
                (nn.functional.cross_entropy(logits, given) / accumulate).backward()
                if (i + 1) % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                recorder.log(logits, given, sample_ids)
            recorder.end_epoch()
    return recorder.close()


class Module(pl.LightningModule):
    def __init__(self, returns_dict=True):
        super().__init__()
        self.network, self.returns_dict = build_network(), returns_dict
        self.validated = 0

    def training_step(self, batch, batch_idx):
        images, labels, sample_ids = batch
        logits = self.network(images)
        loss = nn.functional.cross_entropy(logits, labels)
        if not self.returns_dict:
            return {"loss": loss, "z": logits}
        return {"loss": loss, "logits": logits, "labels": labels, "sample_ids": sample_ids}

    def validation_step(self, batch, batch_idx):
        self.validated += len(batch[0])

    def configure_optimizers(self):
        return build_optimizer(self.network)


def fit(root, data, callback, module=None, **changes):
    """A Lightning fit, with a validation pass before it and after every epoch."""
    inputs, labels, ids = data
    settings = dict(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        callbacks=[callback],
    )
    items = WithIds(TensorDataset(inputs, labels), ids)
    module = module or Module()
    trainer = pl.Trainer(**(settings | changes))
    trainer.fit(module, DataLoader(items, batch_size=BATCH), DataLoader(items, batch_size=BATCH))
    return module


class Net(nn.Module):
    """As the models of transformers: inputs by name, a mapping out."""

    def __init__(self):
        super().__init__()
        self.network = build_network()
        self.evaluated = 0

    def forward(self, pixel_values, labels=None):
        logits = self.network(pixel_values)
        self.evaluated += 0 if self.training else len(logits)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train(root, data, callback, net=None, with_ids=True, **changes):
    """A training by Hugging Face's Trainer, with an evaluation after every epoch."""
    inputs, labels, ids = data
    net = net or Net()
    items = [{"pixel_values": image, "labels": int(label)} for image, label in zip(inputs, labels, strict=True)]
    optimizer = build_optimizer(net)
    settings = dict(
        output_dir=str(root / "trainer"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        max_grad_norm=0.0,
        eval_strategy="epoch",
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=net,
        args=TrainingArguments(**(settings | changes)),
        train_dataset=WithIds(items, ids) if with_ids else items,
        eval_dataset=WithIds(items, ids) if with_ids else items,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
        callbacks=[callback],
    )
    trainer.train()
    return trainer


def leftovers(root):
    return [p.name for p in (root / "runs").iterdir() if p.name.startswith(".recording")]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_they_publish_what_a_plain_loop_does(small_workspace, data, accumulate):
    root = small_workspace.root
    plain = by_hand(root, data, accumulate)
    callbacks = LightningCallback(root, "small"), TransformersCallback(root, "small")
    module = fit(root, data, callbacks[0], accumulate_grad_batches=accumulate)
    trainer = train(root, data, callbacks[1], gradient_accumulation_steps=accumulate)
    assert module.validated > EPOCHS * 200 and trainer.model.evaluated == EPOCHS * 200  # the sanity check came first

    small = engine.open(root)["small"]
    runs = [engine.open(root).find_run(run) for run in (plain, callbacks[0].run_id, callbacks[1].run_id)]
    assert [run.spec["name"] for run in runs] == ["by hand", "lightning", "transformers"]
    frames = [
        small.query(
            f"SELECT * EXCLUDE (run_id) FROM dynamics WHERE run_id = '{run.id}' ORDER BY seed, epoch, sample_id"
        )
        for run in runs
    ]
    assert len(frames[0]) == EPOCHS * 200 and frames[0]["loss"].std() > 0.1
    first, last = (frames[0].query(f"epoch == {epoch}")["loss"].mean() for epoch in (1, EPOCHS))
    assert last < first - 0.1
    for frame, run in zip(frames[1:], runs[1:], strict=True):
        assert list(frame) == list(frames[0])
        for column in frame:
            assert np.allclose(frame[column].astype(float), frames[0][column].astype(float), atol=1e-5), column
        assert np.allclose(run.scores().drop(columns="random"), runs[0].scores().drop(columns="random"), atol=1e-4)
    # To the last bit: a run's id hashes what was recorded, and the name.
    assert len({run.spec["dynamics"] for run in runs}) == 1
    assert leftovers(root) == [] and not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks


def test_the_same_name_is_the_same_run(small_workspace, data):
    root = small_workspace.root
    plain = by_hand(root, data, 1)
    callback = LightningCallback(root, "small", name="by hand")
    fit(root, data, callback)
    assert callback.run_id == plain


def test_a_function_reads_batches_of_any_form(small_workspace, data):
    root = small_workspace.root
    callback = LightningCallback(
        root,
        "small",
        outputs="log_probs",
        read=lambda batch, outputs: (outputs["z"].log_softmax(1), batch[1], batch[2]),
    )
    fit(root, data, callback, Module(returns_dict=False), max_epochs=1)
    assert engine.open(root).find_run(callback.run_id).spec["epochs"] == 1


def test_an_epoch_that_is_cut_short_is_left_out(small_workspace, data):
    root = small_workspace.root
    callbacks = LightningCallback(root, "small"), TransformersCallback(root, "small")
    fit(root, data, callbacks[0], max_steps=4 + 2)
    train(root, data, callbacks[1], max_steps=4 + 2)
    for callback in callbacks:
        assert engine.open(root).find_run(callback.run_id).spec["epochs"] == 1


def test_a_model_of_transformers_and_labels_that_the_trainer_keeps_from_it(small_workspace, data):
    sizes = dict(image_size=8, patch_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    vit = ViTForImageClassification(ViTConfig(num_channels=1, num_attention_heads=2, num_labels=10, **sizes))
    root = small_workspace.root
    callback = TransformersCallback(root, "small")
    train(root, data, callback, vit, num_train_epochs=1, label_smoothing_factor=0.1)
    labels = data[1][data[2].argsort()]
    recorded = engine.open(root)["small"].query("SELECT predicted, correct FROM dynamics ORDER BY sample_id")
    assert np.array_equal(recorded["correct"], recorded["predicted"] == labels.numpy())


def test_what_is_missing_is_said_and_nothing_is_left(small_workspace, data):
    root, before = small_workspace.root, small_workspace.run_ids()
    with pytest.raises(engine.ScoreInputError, match="training_step returned no logits, labels, sample_ids; return a"):
        fit(root, data, LightningCallback(root, "small"), Module(returns_dict=False))
    with pytest.raises(engine.SpecError, match=r"give TrainingArguments\(remove_unused_columns=False\)"):
        train(root, data, TransformersCallback(root, "small"), remove_unused_columns=True)
    callback, net = TransformersCallback(root, "small"), Net()
    with pytest.raises(engine.ScoreInputError, match=r"no sample_ids; wrap the training dataset: WithIds\(dataset\)"):
        train(root, data, callback, net, with_ids=False)
    with pytest.raises(engine.NotFoundError, match="unknown dataset 'smal'"):
        fit(root, data, LightningCallback(root, "smal"))
    with pytest.raises(engine.SpecError, match="records on one device, the trainer has 2"):
        LightningCallback(root, "small").on_fit_start(type("Trainer", (), {"world_size": 2})(), Module())
    # The next training of the same callback starts anew.
    train(root, data, callback, net, num_train_epochs=1)
    assert small_workspace.run_ids() == sorted([*before, callback.run_id])
    assert leftovers(root) == [] and not net._forward_hooks


@pytest.mark.parametrize(
    ("package", "command"), [("lightning", "pip install lightning"), ("transformers", "pip install transformers")]
)
def test_a_missing_framework_is_named_with_the_command(monkeypatch, package, command):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, f"engine.integrations.{package}")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=command) as error:
        importlib.import_module(f"engine.integrations.{package}")
    assert "\n" not in str(error.value)


class Overflowing(nn.Module):
    """A network one of whose logits is infinite."""

    def __init__(self):
        super().__init__()
        self.network = build_network()

    def forward(self, images):
        logits = self.network(images)
        return logits + torch.where(torch.arange(10) == 3, -torch.inf, 0.0)


@pytest.mark.parametrize("outputs", ["logits", "probs"])
def test_infinite_logits_stop_a_training_that_is_recorded(small_workspace, data, outputs):
    root = small_workspace.root
    module, net = Module(), Net()
    module.network, net.network = Overflowing(), Overflowing()
    expected = "not finite, or too far apart" if outputs == "logits" else "the probs of sample"
    with pytest.raises(ScoreInputError, match=expected):
        fit(root, data, LightningCallback(root, "small", outputs=outputs), module)
    with pytest.raises(ScoreInputError, match=expected):
        train(root, data, TransformersCallback(root, "small", outputs=outputs), net)
    assert engine.open(root)["small"].runs().empty
