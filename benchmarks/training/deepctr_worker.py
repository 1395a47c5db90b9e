"""One side of the throughput benchmark: deepctr-torch's DIEN, run by the interpreter of an environment of its own.

Reads commands as JSON lines from standard input and answers each with one line: ``{"batches": file}`` loads batches,
``{"round": true}`` trains one pass over them. Imports nothing of this project. The step is the library's own: what
``BaseModel.fit`` does between taking a batch and logging it.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat, get_feature_names
from deepctr_torch.models import DIEN

torch.set_num_threads(1)


def build(sizes: dict[str, int], width: int, history: int) -> DIEN:
    item = {"vocabulary_size": sizes["item"], "embedding_dim": width, "embedding_name": "item_id"}
    columns = [
        SparseFeat("item_id", **item),
        SparseFeat("gender", vocabulary_size=sizes["gender"], embedding_dim=width),
        SparseFeat("occupation", vocabulary_size=sizes["occupation"], embedding_dim=width),
        DenseFeat("age", 1),
        VarLenSparseFeat(SparseFeat("hist_item_id", **item), maxlen=history, length_name="length"),
        VarLenSparseFeat(SparseFeat("neg_hist_item_id", **item), maxlen=history, length_name="length"),
    ]
    model = DIEN(
        columns,
        ["item_id"],
        gru_type="AUGRU",
        use_negsampling=True,
        alpha=0.5,
        dnn_hidden_units=(256, 128),
        att_hidden_units=(64, 16),
        l2_reg_embedding=0,
        device="cpu",
    )
    assert "neg_hist_item_id" in get_feature_names(columns)
    model.compile("adam", "binary_crossentropy")
    return model.train()


def batches_of(file: str, model: DIEN) -> list[tuple[torch.Tensor, torch.Tensor]]:
    width = max(stop for _, stop in model.feature_index.values())
    batches = []
    with np.load(file, allow_pickle=False) as arrays:
        for number in range(int(arrays["count"])):
            labels = torch.from_numpy(arrays[f"{number}.label"])
            packed = torch.zeros(len(labels), width)
            for name, (start, stop) in model.feature_index.items():
                packed[:, start:stop] = torch.from_numpy(arrays[f"{number}.{name}"]).float().reshape(len(labels), -1)
            batches.append((packed, labels.float()))
    return batches


def train_round(model: DIEN, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    losses = 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    for inputs, labels in batches:
        predicted = model(inputs).squeeze()
        model.optim.zero_grad()
        loss = model.loss_func(predicted, labels.squeeze(), reduction="sum")
        total = loss + model.get_regularization_loss() + model.aux_loss
        losses += loss.item()
        total.backward()
        model.optim.step()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "loss": losses}


def main() -> None:
    model, batches = None, []
    for line in sys.stdin:
        command = json.loads(line)
        if "batches" in command:
            torch.manual_seed(0)
            model = build(command["sizes"], command["width"], command["history"])
            batches = batches_of(command["batches"], model)
            answer = {"rows": sum(len(labels) for _, labels in batches)}
        else:
            answer = train_round(model, batches)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
