"""Layers: one family a file, every public name importable from here."""

from models.layers import advanced_activations
from models.layers.activations import Dice, PReLU
from models.layers.advanced_activations import get as get_activation
from models.layers.attention_group import AttentionGroup
from models.layers.auxiliary_loss import AuxiliaryLoss
from models.layers.dense import Dense
from models.layers.dien import DIEN, Interest
from models.layers.dmr import DMR_U2I
from models.layers.gru import GRU
from models.layers.logits import LogitCorrection, log_sigmoid
from models.layers.masks import length_to_mask, masked_softmax
from models.layers.mlp import MLP
from models.layers.normalization import BatchNorm, LayerNorm
from models.layers.pooling import SequencePooling
from models.layers.recurrent import AIGRU, AGRUCell, dynamic_rnn_with_attention, static_rnn_with_attention
from models.layers.target_attention import DIN, BilinearAttention, InterestAttention
from models.layers.tensor_array import create_ta

__all__ = [
    "AIGRU",
    "DIEN",
    "DIN",
    "DMR_U2I",
    "GRU",
    "MLP",
    "AGRUCell",
    "AttentionGroup",
    "AuxiliaryLoss",
    "BatchNorm",
    "BilinearAttention",
    "Dense",
    "Dice",
    "Interest",
    "InterestAttention",
    "LayerNorm",
    "LogitCorrection",
    "PReLU",
    "SequencePooling",
    "advanced_activations",
    "create_ta",
    "dynamic_rnn_with_attention",
    "get_activation",
    "length_to_mask",
    "log_sigmoid",
    "masked_softmax",
    "static_rnn_with_attention",
]
