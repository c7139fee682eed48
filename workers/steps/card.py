"""The model card of one winner: what it answers, how well, how fast, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from search.export.folder import AUTO_CLASSES
from search.shape import ModelShape
from search.space import SubnetConfig
from workers.steps.card_tables import recipe_section, robustness_section
from workers.steps.origin import Origin


@dataclass(frozen=True, slots=True)
class Wording:
    """What differs by task: the tag of hubs, the title, and what an answer of the file is.

    `encode` reads the input and `answer` the output in the snippet that runs the ONNX file.
    """

    tag: str
    title: str
    metric: str
    answer: str
    encode: str = '.encode("a text")'
    output: str = "logits"


_LABEL = 'json.loads(pathlib.Path("config.json").read_text())["id2label"]'
WORDING: Mapping[str, Wording] = {
    "text-classification": Wording(
        "text-classification",
        "A text classifier",
        "accuracy",
        f"print({_LABEL}[str(logits[0].argmax())])",
    ),
    "pair-classification": Wording(
        "text-classification",
        "A classifier of pairs of texts",
        "accuracy",
        f"print({_LABEL}[str(logits[0].argmax())])",
        '.encode("a text", "another one")',
    ),
    "token-classification": Wording(
        "token-classification",
        "A tagger of tokens",
        "accuracy of tags",
        f"names = {_LABEL}\n"
        "print([(token, names[str(i)]) for token, i in zip(text.tokens, logits[0].argmax(-1))])",
        '.encode(["some", "words"], is_pretokenized=True)',
    ),
    "sentence-embedding": Wording(
        "feature-extraction",
        "An encoder of sentences",
        "cosine to the unsearched model's vectors",
        "print(sentence_embedding[0])",
        output="sentence_embedding",
    ),
    "language-modelling": Wording(
        "text-generation",
        "A language model",
        "log-likelihood of a token (nats)",
        "print(tokenizer.decode([int(logits[0, -1].argmax())]))",
    ),
    "image-classification": Wording(
        "image-classification",
        "An image classifier",
        "accuracy",
        f"print({_LABEL}[str(logits[0].argmax())])",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """All that a card tells.

    Attributes:
        onnx: name of the exported file in the folder.
        config: the folder's config.json; empty where the family has no writer.
        figures: of the network, `report` of the whole job and `profile` of where the network
            runs, as the job's report has them.
        missing: why there is no folder for transformers, if there is none.
    """

    shape: ModelShape
    subnet: SubnetConfig
    label_names: Sequence[str]
    onnx: str
    config: Mapping[str, Any]
    figures: Mapping[str, Any]
    report: Mapping[str, Any]
    profile: Mapping[str, Any]
    origin: Origin
    missing: str = ""

    @property
    def wording(self) -> Wording:
        return WORDING[self.shape.task]

    def text(self) -> str:
        recipe = self.figures.get("recipe")
        title = f"# {self.wording.title} that fits {self.figures['budget_ms']:.2f} ms"
        parts = (
            *(title, self._figures(), self._facts(), self._layers()),
            *([recipe_section(recipe)] if recipe and recipe["stages"] else []),
            *([self._robustness()] if self._robustness() else []),
            self._use(),
            *([self._formats()] if self._written else []),
        )
        return self._front_matter() + "\n\n".join(parts) + "\n"

    def _robustness(self) -> str:
        parts = {"this network": self.figures, "unsearched model": self.report["baseline"]}
        parts["the same in int8"] = self.report.get("quantized_only") or {}
        return robustness_section({name: part.get("robustness") for name, part in parts.items()})

    @property
    def _written(self) -> list[Mapping[str, Any]]:
        """Further formats that the folder has."""
        return [e for e in self.figures.get("exports", ()) if not e["error"]]

    def _formats(self) -> str:
        """Of each further file: what it is, and how it compares with the trained network."""
        rows = [
            f"| `{next(iter(e['files']))}` | {e['size_bytes']} | {e['precision']} "
            f"| {e['agreement']:.1%} | {e['note']} |"
            for e in self._written
        ]
        lines = [
            "Further formats, which were checked and not measured on the device:",
            "",
            "| file | bytes | precision | answers alike | |",
            "|---|---|---|---|---|",
            *rows,
        ]
        if any("openvino" in e["format"] for e in self._written):
            lines += [
                "",
                "OpenVINO computes in bf16 where it can, unless it is told otherwise: "
                '`compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})`.',
            ]
        return "\n".join(lines)

    def _front_matter(self) -> str:
        is_int8 = self.subnet.precision == "int8"
        data: dict[str, Any] = {}
        if self.origin.license is not None:
            data["license"] = self.origin.license
        if self.origin.base_model is not None:
            data["base_model"] = self.origin.base_model
            data["base_model_relation"] = "quantized" if is_int8 else "finetune"
        data |= {
            "library_name": "transformers" if self.config else "onnxruntime",
            "pipeline_tag": self.wording.tag,
            "tags": ["snugnet", "neural-architecture-search", "onnx"],
        }
        if "auto_map" in self.config:
            data["tags"].append("custom_code")
        return f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n"

    def _figures(self) -> str:
        ours, unsearched = self.figures, self.report["baseline"]
        times = self.profile["baseline"]
        energy = "energy_mj" in ours and "energy_mj" in unsearched
        return "\n".join(
            [
                "| | this network | unsearched model |",
                "|---|---|---|",
                f"| {self.wording.metric}, test split | {ours['quality']:.4f} "
                f"| {unsearched['quality']:.4f} |",
                f"| within (95 %, all of them at once) | {_interval(ours)} "
                f"| {_interval(unsearched)} |",
                f"| p50 latency, ms | {ours['p50_ms']:.3f} | {times['p50_ms']:.3f} |",
                f"| p95 latency, ms | {ours['p95_ms']:.3f} | {times['p95_ms']:.3f} |",
                *([_energy(ours, unsearched)] if energy else []),
                f"| ONNX file, bytes | {ours['size_bytes']} | {unsearched['size_bytes']} |",
                f"| parameters | {ours['params']} | {unsearched['params']} |",
            ]
        )

    def _facts(self) -> str:
        workload = self.profile["workload"]
        given = "patches" if self.shape.reads_images else "tokens"
        facts = [
            f"Measured on {self.profile['device']['cpu_model']} in {workload['runtime']} "
            f"({workload['provider']}): batch {workload['batch_size']}, {workload['seq_len']} "
            f"{given}, phase {workload['phase']}, {workload['threads']} thread(s).",
            f"Base model: {self.origin.base_model or 'unknown'}. "
            f"Its licence: {self.origin.license or 'unknown'}.",
            "`metrics.json` has the lineage: the job, its data, and what each stage changed. "
            "`manifest.json` has size and SHA-256 of every file, `manifest.sig` its signature: "
            "`snugnet verify . --url SERVER` compares them.",
        ]
        if self.label_names:
            facts.insert(1, f"Labels: {', '.join(self.label_names)}.")
        return "\n".join(facts)

    def _layers(self) -> str:
        subnet = self.subnet
        rows = [
            f"| {layer} | {num_heads} | {ffn_dim} | {subnet.precision_of(layer)} |"
            for layer, num_heads, ffn_dim in zip(
                subnet.layers, subnet.num_heads, subnet.ffn_dim, strict=True
            )
        ]
        head = ["| layer of the original | heads | neurons | precision |", "|---|---|---|---|"]
        width = f"The stream between layers has {subnet.width_in(self.shape)} features."
        return "\n".join([*head, *rows, "", width])

    def _use(self) -> str:
        parts = [f"The exported file, which is what was measured:\n\n{_code(self.snippet())}"]
        if self.config:
            parts.append(f"The weights, in {self._weights()}:\n\n{_code(self.loading())}")
        elif self.missing:
            parts.append(f"There is no folder of weights: {self.missing}.")
        return "\n\n".join(parts)

    def _weights(self) -> str:
        if self.subnet.precision == "int8":
            return "fp32: they were trained under the rounding of int8, which the file above has"
        if self.figures.get("precision", "fp32") != "fp32":
            return f"fp32: they were rounded to {self.figures['precision']}, as in the file above"
        return "fp32"

    def loading(self) -> str:
        """Loads the folder by transformers, and as a network of the search."""
        auto = AUTO_CLASSES[self.shape.task]
        trust = ", trust_remote_code=True" if auto in self.config.get("auto_map", {}) else ""
        lines = [
            f"from transformers import {auto}",
            f'model = {auto}.from_pretrained("."{trust})',
            "",
            "from search.export import load_subnet",
            'network, subnet = load_subnet(".")',
        ]
        if not self.shape.has_head:
            lines.insert(2, "# A sentence's vector is the mean of its tokens' last hidden states.")
        return "\n".join(lines)

    def snippet(self) -> str:
        """Runs the ONNX file in its folder."""
        output = self.wording.output
        lines = [
            *(_image(self.shape) if self.shape.reads_images else self._read_text()),
            f'session = onnxruntime.InferenceSession("{self.onnx}")',
            f'({output},) = session.run(["{output}"], feed)',
            self.wording.answer if self.config else f"print({output}[0])",
        ]
        code = "\n".join(lines)
        needed = [name for name in ("json", "pathlib", "tokenizers") if f"{name}." in code]
        return f"import {', '.join([*needed, 'numpy as np', 'onnxruntime'])}\n{code}"

    def _read_text(self) -> list[str]:
        feed = ['"input_ids": np.array([text.ids])']
        feed.append('"attention_mask": np.array([text.attention_mask])')
        if self.shape.has_token_type_input:
            feed.append('"token_type_ids": np.array([text.type_ids])')
        return [
            'tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")',
            f"text = tokenizer{self.wording.encode}",
            f"feed = {{{', '.join(feed)}}}",
        ]


def _code(lines: str) -> str:
    return f"```python\n{lines}\n```"


def _image(shape: ModelShape) -> list[str]:
    side, channels = shape.image_size, shape.num_channels
    return [
        'how = json.loads(pathlib.Path("preprocessor_config.json").read_text())',
        f"image = np.zeros(({side}, {side}, {channels}), np.uint8)  # height, width, channels",
        'values = (image / 255 - how["image_mean"]) / how["image_std"]',
        'feed = {"pixel_values": values.transpose(2, 0, 1)[None].astype(np.float32)}',
    ]


def _energy(ours: Mapping[str, Any], unsearched: Mapping[str, Any]) -> str:
    return (
        f"| energy of an inference, mJ | {ours['energy_mj']:.2f} | {unsearched['energy_mj']:.2f} |"
    )


def _interval(judged: Mapping[str, Any]) -> str:
    within = judged["quality_interval"]
    return f"{within['lower']:.4f} to {within['upper']:.4f}"
