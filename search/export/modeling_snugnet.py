"""Models of transformers whose layers differ in width, as the folder's config.json has them.

`SnugnetBertModel` here is the library's `BertModel` with smaller matrices, and so for every class
of the families below. `per_layer_config` says in what a layer differs from the rest of the config,
`head_dim` how wide a head is, `snugnet` whether layers share their weights (`layers_per_group`),
feed-forward matrices are products of two (`ffn_rank`), and attention is linear.
`SnugnetBertForSequenceClassification` answers by the mean of a text's tokens. For transformers 5.
"""

import inspect
from typing import NamedTuple

import torch
import transformers
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D


class Places(NamedTuple):
    """Where a family keeps the matrices of a layer, and what its config calls the neurons."""

    layers: str
    attention: str
    heads: tuple  # queries, keys and values, or the one that makes all three
    mixed: str  # reads all heads
    neurons: tuple
    down: str  # reads the neurons
    num_neurons: str = "intermediate_size"


BERT = Places(
    "encoder.layer",
    "attention.self",
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    ("intermediate.dense",),
    "output.dense",
)
DISTILBERT = Places(
    "transformer.layer",
    "attention",
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention.out_lin",
    ("ffn.lin1",),
    "ffn.lin2",
    "hidden_dim",
)
GPT2 = Places("h", "attn", ("attn.c_attn",), "attn.c_proj", ("mlp.c_fc",), "mlp.c_proj", "n_inner")
LLAMA = Places(
    "layers",
    "self_attn",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj",
    ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj",
)
VIT = Places(
    "layers",
    "attention",
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.o_proj",
    ("mlp.fc1",),
    "mlp.fc2",
)
FAMILIES = {"bert": BERT, "roberta": BERT, "distilbert": DISTILBERT, "gpt2": GPT2}
FAMILIES |= {"vit": VIT, "deit": VIT, "llama": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA}
# The library renames what files of these families hold, but for its own classes only.
VIT_NAMES = {
    r"encoder\.layer\.": "layers.",
    r"attention\.attention\.query": "attention.q_proj",
    r"attention\.attention\.key": "attention.k_proj",
    r"attention\.attention\.value": "attention.v_proj",
    r"attention\.output\.dense": "attention.o_proj",
    r"intermediate\.dense": "mlp.fc1",
    r"(layers\.\d+)\.output\.dense": r"\1.mlp.fc2",
}


class Fitted:
    """Put before a class of the library: its layers are as wide as the config says."""

    def __init__(self, config, *args, **kwargs):
        stated = config.to_dict()
        # A pooler would have weights that no file holds.
        if "add_pooling_layer" in inspect.signature(super().__init__).parameters:
            kwargs["add_pooling_layer"] = False
        # The library builds layers that are all alike; the heads' number has to divide the stream.
        config.per_layer_config = None
        num_heads = config.num_attention_heads
        if not hasattr(config, "num_key_value_heads"):
            config.num_attention_heads = 1
        super().__init__(config, *args, **kwargs)
        config.num_attention_heads = num_heads
        config.per_layer_config = stated.get("per_layer_config")
        # Nothing below asks the whole config what only a layer's can tell.
        config.allow_global_per_layer_attribute_access = True
        fit_(self.base_model, config, stated)
        if stated.get("snugnet", {}).get("attention") == "linear":
            config._attn_implementation = LINEAR

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        if cls.__name__.startswith(("SnugnetViT", "SnugnetDeiT")):
            kwargs.setdefault("key_mapping", VIT_NAMES)
        return super().from_pretrained(*args, **kwargs)


class Pooled(Fitted):
    """Put before a classifier of tokens: the mean of a text's logits is the text's.

    A mean and a matrix may change places: it is the logits of the mean token.
    """

    def forward(self, input_ids=None, attention_mask=None, labels=None, **inputs):
        inputs |= {"return_dict": True}
        found = super().forward(input_ids, attention_mask=attention_mask, **inputs)
        logits = found.logits
        mask = torch.ones_like(logits[..., 0]) if attention_mask is None else attention_mask
        mask = mask.to(logits.dtype).unsqueeze(-1)
        logits = (logits * mask).sum(1) / mask.sum(1).clamp(min=1)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss, logits, found.hidden_states, found.attentions)


def fit_(body, config, stated):
    """Resize the matrices of every layer; `stated` is what config.json says."""
    places = FAMILIES[config.model_type]
    heads_key = config.attribute_map.get("num_attention_heads", "num_attention_heads")
    own = {int(i): sizes for i, sizes in (stated.get("per_layer_config") or {}).items()}
    rare = stated.get("snugnet", {})
    group, rank = rare.get("layers_per_group", 1), rare.get("ffn_rank", 0)
    head_dim = stated.get("head_dim") or config.hidden_size // stated[heads_key]
    if group > 1:
        layers = body.get_submodule(places.layers)
        body.set_submodule(places.layers, Repeated(layers, group))
    for i, layer in enumerate(body.get_submodule(places.layers)):
        if i % group:
            continue
        sizes = stated | own.get(i, {})
        num_heads = sizes[heads_key]
        num_kv_heads = sizes.get("num_key_value_heads", num_heads)
        fit_attention_(layer, places, config.hidden_size, head_dim, num_heads, num_kv_heads)
        for name in places.neurons:
            resize_(layer, name, sizes[places.num_neurons], config.hidden_size, rank)
        resize_(layer, places.down, config.hidden_size, sizes[places.num_neurons], rank)


def fit_attention_(layer, places, dim, head_dim, num_heads, num_kv_heads):
    inner, kv = num_heads * head_dim, num_kv_heads * head_dim
    rows = (3 * inner,) if len(places.heads) == 1 else (inner, kv, kv)
    for name, num_rows in zip(places.heads, rows, strict=True):
        resize_(layer, name, num_rows, dim)
    resize_(layer, places.mixed, dim, inner)
    # Whatever the family calls them.
    known = dict.fromkeys(("num_attention_heads", "num_heads", "n_heads"), num_heads)
    known |= dict.fromkeys(("head_dim", "attention_head_size"), head_dim)
    known |= dict.fromkeys(("all_head_size", "split_size"), inner)
    attention = layer.get_submodule(places.attention)
    for name, value in (known | {"scaling": head_dim**-0.5}).items():
        if hasattr(attention, name):
            setattr(attention, name, value)


def resize_(layer, name, rows, columns, rank=0):
    """A matrix of this size in the place of another, or with a rank the product of two."""
    old = layer.get_submodule(name)
    if isinstance(old, Conv1D):
        new = (LowConv1D if rank else Conv1D)(rows, rank or columns)
    else:
        new = (LowLinear if rank else nn.Linear)(rank or columns, rows, bias=old.bias is not None)
    if rank:
        new.low = nn.Linear(columns, rank, bias=False)
    layer.set_submodule(name, new.to(old.weight.device, old.weight.dtype))


class LowLinear(nn.Linear):
    """After `low`, the matrix that it makes a product of a lower rank with."""

    def forward(self, x):
        return super().forward(self.low(x))


class LowConv1D(Conv1D):
    def forward(self, x):
        return super().forward(self.low(x))


class Repeated(nn.ModuleList):
    """Of layers, the first of each group, which runs in the place of all of its group."""

    def __init__(self, layers, group):
        super().__init__(list(layers)[::group])
        self.group, self.count = group, len(layers)

    def __iter__(self):
        own = list(super().__iter__())
        return (own[place // self.group] for place in range(self.count))


LINEAR = "snugnet_linear"


def linear_attention(_module, query, key, value, attention_mask, **_options):
    """(batch, tokens, heads, features): queries are shares of features, keys are shares of tokens
    (Shen et al., arXiv 1812.01243, section 3.2)."""
    if attention_mask is not None:
        # Every token sees the same ones: the first row tells which.
        key = key + attention_mask[:, :, :1].transpose(-1, -2)
    kept = key.softmax(2).transpose(-1, -2) @ value
    return (query.softmax(-1) @ kept).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(LINEAR, linear_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(LINEAR, eager_mask)


def __getattr__(name):
    """The library's class of this name, fitted; made when it is asked for."""
    if not name.startswith("Snugnet"):
        raise AttributeError(name)
    stock = name.removeprefix("Snugnet")
    first = Pooled if stock.endswith("ForSequenceClassification") else Fitted
    stock = stock.replace("ForSequence", "ForToken")
    made = type(name, (first, getattr(transformers, stock)), {"__module__": __name__})
    return globals().setdefault(name, made)
