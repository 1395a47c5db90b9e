"""Writes docs/layers/*.md, a page for each family of layers, from the docstrings.

Run it after changing one: ``python docs/generate_layer_pages.py``.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from models import layers

FOLDER: Final = Path(__file__).parent / "layers"
# Page, title, names: all of `models.layers`, or of its module `advanced_activations`.
FAMILIES: Final[dict[str, tuple[str, list[str]]]] = {
    "dense": ("Dense layers and normalisation", ["AddBias", "Dense", "MLP", "LayerNorm", "BatchNorm"]),
    "activations": (
        "Activations",
        ["get_activation", "advanced_activations.serialize", "advanced_activations.deserialize", "PReLU", "Dice"],
    ),
    "pooling": ("Pooling", ["Pooling", "SumPooling", "AvgPooling", "MaxPooling", "SequencePooling"]),
    "feature-crossing": ("Feature crossing", ["GroupInt", "AllInt", "CDot", "CAN", "DCN", "CIN"]),
    "feature-transforms": ("Feature transforms", ["AutoInt", "SeNet", "merge_tensor_list"]),
    "target-attention": (
        "Target attention",
        ["DIN", "InterestAttention", "BilinearAttention", "DMR_U2I", "masked_softmax", "length_to_mask"],
    ),
    "recurrent": (
        "Recurrent layers with attention",
        ["GRU", "AGRUCell", "dynamic_rnn_with_attention", "static_rnn_with_attention", "AIGRU", "create_ta"],
    ),
    "interest-evolution": ("Interest evolution", ["DIEN", "Interest", "AuxiliaryLoss", "AttentionGroup"]),
    "logits-and-calibration": (
        "Logits and calibration",
        [
            "LogitCorrection",
            "log_sigmoid",
            "undo_negative_downsampling",
            "undo_negative_downsampling_logit",
            "undo_fake_negative_logit",
            "prior_shift_logit",
            "platt_scale",
            "temperature_scale",
            "isotonic_fit",
            "isotonic_apply",
        ],
    ),
    "multi-task": ("Multi-task structure", ["MMoE", "SNR", "hard_concrete_ste"]),
    "loss-weighting": ("Loss weighting", ["GradNorm", "UncertaintyWeighting", "CustomMultiLossLayer"]),
    "architecture-search": (
        "Architecture search",
        ["NASSelectionLayer", "MixedNASLayer", "NASGatingLayer", "SimpleNasLayer"],
    ),
}
NOTE: Final = "<!-- Written by docs/generate_layer_pages.py from the docstrings; change those and run it. -->"
WIDTH: Final = 120
LISTS: Final = ("Args", "Attributes", "Raises")
SECTION: Final = re.compile(r"^(Args|Attributes|Returns|Raises|Example):$", re.MULTILINE)
ENTRY: Final = re.compile(r"^(\w+): ", re.MULTILINE)
LABEL: Final = re.compile(r"^(Source|Shapes): ")
PAPER: Final = re.compile(r"arXiv:(\d{4}\.\d{5})")
CODE: Final = re.compile(r"(``[^`]+``)")


def pages() -> dict[str, str]:
    """Text of every page, by file name."""
    written = {"README.md": _index()}
    for family, (title, names) in FAMILIES.items():
        parts = [f"# {title}", NOTE, *(_layer(name) for name in names)]
        written[f"{family}.md"] = "\n\n".join(parts) + "\n"
    return written


def _index() -> str:
    lines = [
        "# Layers",
        NOTE,
        "Every layer is importable from `models.layers`. Letters: B rows, U users, C candidates, T steps, D width, N "
        "features, H hidden width, E experts, K tasks. Shapes, errors and sources are those of the docstrings; every "
        "example runs as a test.",
        "| page | layers |\n|---|---|",
    ]
    rows = [
        f"| [{title}]({family}.md) | {', '.join(f'`{name}`' for name in names)} |"
        for family, (title, names) in FAMILIES.items()
    ]
    return "\n\n".join(lines) + "\n" + "\n".join(rows) + "\n"


def _layer(name: str) -> str:
    documented: Any = layers
    for part in name.split("."):
        documented = getattr(documented, part)
    call = _code(_call(name.split(".")[-1], documented), "python")
    pieces = SECTION.split(inspect.getdoc(documented) or "")
    parts = [f"## {name}", call, *(_paragraph(text) for text in pieces[0].strip().split("\n\n"))]
    for section, text in zip(pieces[1::2], pieces[2::2], strict=True):
        body = textwrap.dedent(text.strip("\n"))
        if section == "Example":
            parts.append(_code(body, "python"))
        elif section in LISTS:
            parts.append(f"**{section}**\n\n" + "\n".join(_entries(body)))
        else:
            parts.append(f"**{section}** {_prose(body)}")
    return "\n\n".join(parts)


def _call(name: str, documented: Any) -> str:
    """The signature without annotations, laid out as the formatter of the code does."""
    shown = []
    starred = False
    for parameter in inspect.signature(documented).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        default = json.dumps(parameter.default) if isinstance(parameter.default, str) else repr(parameter.default)
        shown.append(parameter.name if parameter.default is parameter.empty else f"{parameter.name}={default}")
    line = f"{name}({', '.join(shown)})"
    if len(line) <= WIDTH:
        return line
    inner = f"    {', '.join(shown)}"
    if len(inner) <= WIDTH:
        return f"{name}(\n{inner}\n)"
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in shown), ")"])


def _code(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _paragraph(text: str) -> str:
    if text.startswith(("=", " ")):  # a table or a formula, laid out by hand
        return _code(textwrap.dedent(text).strip("\n"), "text")
    return LABEL.sub(r"**\1** ", _prose(text))


def _entries(body: str) -> Iterator[str]:
    """One bullet an argument or an error."""
    pieces = ENTRY.split(body)
    for entry, text in zip(pieces[1::2], pieces[2::2], strict=True):
        yield f"- `{entry}`: {_prose(text)}"


def _prose(text: str) -> str:
    """One line, with what Markdown would read as markup made plain."""
    joined = " ".join(text.split())
    parts = [f"`{part.strip('`')}`" if CODE.fullmatch(part) else _plain(part) for part in CODE.split(joined)]
    return "".join(parts)


def _plain(text: str) -> str:
    escaped = re.sub(r"([*<|])", r"\\\1", text)
    return PAPER.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", escaped)


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
