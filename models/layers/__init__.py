"""Layers: one family a file, every public name importable from here."""

from models.layers import advanced_activations
from models.layers.activations import Dice, PReLU
from models.layers.add_bias import AddBias
from models.layers.advanced_activations import get as get_activation
from models.layers.attention_group import AttentionGroup
from models.layers.auxiliary_loss import AuxiliaryLoss
from models.layers.calibration import (
    isotonic_apply,
    isotonic_fit,
    platt_scale,
    prior_shift_logit,
    temperature_scale,
    undo_fake_negative_logit,
    undo_negative_downsampling,
    undo_negative_downsampling_logit,
)
from models.layers.cin import CIN
from models.layers.co_action import CAN
from models.layers.cross import DCN
from models.layers.dense import Dense
from models.layers.dien import DIEN, Interest
from models.layers.dmr import DMR_U2I
from models.layers.feature_transform import AutoInt, SeNet
from models.layers.group_interaction import FFM, AllInt, CDot, GroupInt
from models.layers.gru import GRU
from models.layers.logits import LogitCorrection, log_sigmoid
from models.layers.loss_weighting import CustomMultiLossLayer, GradNorm, UncertaintyWeighting
from models.layers.masks import length_to_mask, masked_softmax
from models.layers.merging import merge_tensor_list
from models.layers.mlp import MLP
from models.layers.mmoe import MMoE
from models.layers.nas import MixedNASLayer, NASSelectionLayer
from models.layers.nas_gates import NASGatingLayer, SimpleNasLayer
from models.layers.normalization import BatchNorm, LayerNorm
from models.layers.pooling import AvgPooling, MaxPooling, Pooling, SequencePooling, SumPooling
from models.layers.recurrent import AIGRU, AGRUCell, dynamic_rnn_with_attention, static_rnn_with_attention
from models.layers.snr import SNR, hard_concrete_ste
from models.layers.target_attention import DIN, BilinearAttention, InterestAttention
from models.layers.tensor_array import create_ta

__all__ = [
    "AIGRU",
    "CAN",
    "CIN",
    "DCN",
    "DIEN",
    "DIN",
    "DMR_U2I",
    "FFM",
    "GRU",
    "MLP",
    "SNR",
    "AGRUCell",
    "AddBias",
    "AllInt",
    "AttentionGroup",
    "AutoInt",
    "AuxiliaryLoss",
    "AvgPooling",
    "BatchNorm",
    "BilinearAttention",
    "CDot",
    "CustomMultiLossLayer",
    "Dense",
    "Dice",
    "GradNorm",
    "GroupInt",
    "Interest",
    "InterestAttention",
    "LayerNorm",
    "LogitCorrection",
    "MMoE",
    "MaxPooling",
    "MixedNASLayer",
    "NASGatingLayer",
    "NASSelectionLayer",
    "PReLU",
    "Pooling",
    "SeNet",
    "SequencePooling",
    "SimpleNasLayer",
    "SumPooling",
    "UncertaintyWeighting",
    "advanced_activations",
    "create_ta",
    "dynamic_rnn_with_attention",
    "get_activation",
    "hard_concrete_ste",
    "isotonic_apply",
    "isotonic_fit",
    "length_to_mask",
    "log_sigmoid",
    "masked_softmax",
    "merge_tensor_list",
    "platt_scale",
    "prior_shift_logit",
    "static_rnn_with_attention",
    "temperature_scale",
    "undo_fake_negative_logit",
    "undo_negative_downsampling",
    "undo_negative_downsampling_logit",
]
