"""The other side of the batch benchmark: another library's DIEN and its own predict, in an environment of its own.

Reads commands as JSON lines from standard input and answers each with one line: ``{"load": library, "arrays": file}``
builds the library's network and keeps the rows ready in memory, ``{"predict": batch size, "rows": n}`` predicts the
first n of them. Imports nothing of this project.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import torch

WIDTH, ITEMS, CATEGORIES, CONTEXT = 18, 50_002, 502, 16
ATTENTION, TOP = (80, 40), (200, 80)
Arrays = dict[str, np.ndarray]
Predict = Callable[[int, int], np.ndarray]

torch.set_num_threads(1)
torch.manual_seed(0)


def deepctr(arrays: Arrays) -> tuple[torch.nn.Module, Predict]:
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import DIEN

    steps = arrays["hist_item"].shape[1]
    sizes = {"item": ITEMS, "category": CATEGORIES}
    columns = [SparseFeat(name, size, WIDTH, embedding_name=name) for name, size in sizes.items()]
    columns += [DenseFeat(f"context_{number}", 1) for number in range(CONTEXT)]
    for name, size in sizes.items():
        feature = SparseFeat(f"hist_{name}", size, WIDTH, embedding_name=name)
        columns.append(VarLenSparseFeat(feature, maxlen=steps, length_name="length"))
    model = DIEN(
        columns,
        list(sizes),
        gru_type="AUGRU",
        dnn_hidden_units=TOP,
        att_hidden_units=ATTENTION,
        att_activation="sigmoid",
        device="cpu",
    )
    named = {name: arrays[name] for name in ("item", "category", "hist_item", "hist_category", "length")}
    named |= {f"context_{number}": arrays["context"][:, number] for number in range(CONTEXT)}

    def predict(rows: int, batch_size: int) -> np.ndarray:
        return model.predict({name: array[:rows] for name, array in named.items()}, batch_size).reshape(-1)

    return model, predict


def rechub(arrays: Arrays) -> tuple[torch.nn.Module, Predict]:
    """Its attention is bilinear, which is less work than two layers; one table of 36 stands for item and category."""
    from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
    from torch_rechub.models.ranking import DIEN
    from torch_rechub.trainers import CTRTrainer
    from torch_rechub.utils.data import DataGenerator

    past = {"vocab_size": ITEMS, "embed_dim": 2 * WIDTH, "pooling": "concat", "shared_with": "item", "padding_idx": 0}
    model = DIEN(
        features=[DenseFeature(f"context_{number}") for number in range(CONTEXT)],
        history_features=[SequenceFeature("hist_item", **past)],
        neg_history_features=[SequenceFeature("neg_item", **past)],
        target_features=[SparseFeature("item", ITEMS, embed_dim=2 * WIDTH, padding_idx=0)],
        mlp_params={"dims": list(TOP)},
    )
    trainer = CTRTrainer(model, device="cpu", loss_mode=False, model_path=tempfile.gettempdir())
    named = {"item": arrays["item"], "hist_item": arrays["hist_item"], "neg_item": arrays["hist_item"]}
    named |= {f"context_{number}": arrays["context"][:, number] for number in range(CONTEXT)}

    def predict(rows: int, batch_size: int) -> np.ndarray:
        some = {name: array[:rows] for name, array in named.items()}
        data = DataGenerator(some, np.zeros(rows, dtype=np.float32))
        loader, _, _ = data.generate_dataloader(some, np.zeros(rows), some, np.zeros(rows), batch_size=batch_size)
        loader = torch.utils.data.DataLoader(loader.dataset, batch_size=batch_size)
        return np.array(trainer.predict(model, loader))

    return model, predict


def fuxictr(arrays: Arrays) -> tuple[torch.nn.Module, Predict]:
    from fuxictr.features import FeatureMap
    from model_zoo.LongCTR.DIEN.DIEN import DIEN

    features = FeatureMap("rows", tempfile.gettempdir())
    features.labels = ["label"]
    for number in range(CONTEXT):
        features.features[f"context_{number}"] = {"type": "numeric", "source": "context", "embedding_dim": 1}
    for name, size in (("item", ITEMS), ("category", CATEGORIES)):
        spec = {"type": "categorical", "source": "item", "vocab_size": size, "embedding_dim": WIDTH, "padding_idx": 0}
        features.features[name] = spec
    features.set_column_index()
    model = DIEN(
        features,
        dnn_hidden_units=list(TOP),
        embedding_dim=WIDTH,
        batch_norm=False,
        attention_type="din_attention",
        attention_hidden_units=list(ATTENTION),
        attention_activation="sigmoid",
        optimizer="adam",
        loss="binary_crossentropy",
        metrics=["AUC"],
        model_root=tempfile.gettempdir(),
        verbose=0,
    )
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def batches(rows: int, size: int) -> Iterator[tuple[dict, dict, torch.Tensor]]:
        """What the library's loader yields: the candidate stands behind its history."""
        for start in range(0, rows, size):
            part = slice(start, min(rows, start + size))
            context = {f"context_{number}": tensors["context"][part, number] for number in range(CONTEXT)}
            items = {
                name: torch.cat([tensors[f"hist_{name}"][part], tensors[name][part, None]], 1).flatten()
                for name in ("item", "category")
            }
            real = torch.arange(tensors["hist_item"].shape[1]) < tensors["length"][part, None]
            yield context, items, real.float()

    return model, lambda rows, size: model.predict(batches(rows, size))


LIBRARIES = {"deepctr-torch": deepctr, "torch-rechub": rechub, "fuxictr": fuxictr}


def shapes(model: torch.nn.Module) -> list[list[int]]:
    """Shapes of all weights of two dimensions, which show that the network is the one that was asked for."""
    return sorted(list(weight.shape) for weight in model.parameters() if weight.dim() == 2)


def main() -> None:
    predict: Predict | None = None
    for line in sys.stdin:
        command = json.loads(line)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if "load" in command:
                with np.load(command["arrays"], allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
                model, predict = LIBRARIES[command["load"]](arrays)
                answer = {"shapes": shapes(model)}
            else:
                assert predict is not None
                wall, cpu = time.perf_counter(), time.process_time()
                scores = predict(command["rows"], command["predict"])
                answer = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
                answer |= {"rows": len(scores), "finite": bool(np.isfinite(scores).all())}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
