"""Tiny models with random weights, made offline in a second: real tokenizers, templates and architectures, no sense.

``python -m tests.engine.tiny FOLDER [qwen|llama|phi|embed|think|big]`` makes one by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

_CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and tools %}<|im_start|>system\n# Tools\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}"
    'Call them within <tool_call></tool_call>, as {"name": .., "arguments": ..}<|im_end|>\n{% endif %}'
    "<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_THINKING = _CHATML.removesuffix("{% endif %}") + (
    "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_PHI = (
    "{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('only system, user and assistant here') }}{% endif %}"
    "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_CHATML_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Recipe:
    """What a tiny model is made of."""

    arch: str = "qwen2"
    template: str | None = _CHATML
    special: tuple[str, ...] = _CHATML_SPECIAL
    plain: tuple[str, ...] = ("<tool_call>", "</tool_call>")
    eos: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>")
    hidden: int = 64
    layers: int = 2
    vocabulary: int = 800
    context: int = 32768
    seed: int = 7
    pooling: bool = False
    window: int | None = None
    half: bool = False


QWEN = Recipe()
LLAMA = Recipe(arch="llama", hidden=256, layers=4)
PHI = Recipe(
    arch="phi3",
    template=_PHI,
    special=("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    plain=(),
    eos=("<|end|>", "<|endoftext|>"),
)
THINK = replace(QWEN, template=_THINKING, plain=("<tool_call>", "</tool_call>", "<think>", "</think>"))
EMBED = replace(QWEN, pooling=True, seed=11)
SHORT = replace(QWEN, context=512, seed=3)
BIG = Recipe(arch="llama", hidden=512, layers=6, vocabulary=800, seed=5)
SLIDING = Recipe(arch="gemma3_text", window=16, seed=13)
HALF = replace(LLAMA, half=True)  # the weights of most models on the hub have 16 bits
RECIPES = {"qwen": QWEN, "llama": LLAMA, "phi": PHI, "think": THINK, "embed": EMBED, "short": SHORT, "big": BIG}

_ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "phi3": "Phi3ForCausalLM"}


def make(folder: Path, recipe: Recipe = QWEN) -> Path:
    """Write a model folder and return it; the same recipe gives the same bytes.

    A copy stays in the temporary directory: making one takes a second, and the imports for it another two.
    """
    versions = [metadata.version(name) for name in ("mlx", "tokenizers")]
    made_of = repr((recipe, versions)).encode() + Path(__file__).read_bytes()
    kept = Path(tempfile.gettempdir()) / f"sluice-tiny-{hashlib.sha256(made_of).hexdigest()[:16]}"
    if not kept.exists():
        fresh = _make(Path(tempfile.mkdtemp(prefix="sluice-tiny-")) / "model", recipe)
        with contextlib.suppress(OSError):  # another process was sooner
            fresh.rename(kept)
        shutil.rmtree(fresh.parent)
    return Path(shutil.copytree(kept, folder))


def _make(folder: Path, recipe: Recipe) -> Path:
    folder.mkdir()
    size, eos = _tokenizer(folder, recipe)
    _weights(folder, recipe, -(-size // 64) * 64, eos)
    if recipe.pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
        (folder / "modules.json").write_text("[]")
    return folder


def _lines(seed: int) -> Any:
    """Yield text to learn a vocabulary from: words, JSON, and letters of several scripts."""
    chance = random.Random(seed)
    syllables = ["ka", "lo", "mi", "ter", "ven", "do", "rin", "sa", "pel", "qu", "est", "ion", "ing", "er", "un"]
    for number in range(800):
        words = ["".join(chance.choices(syllables, k=chance.randint(1, 3))) for _ in range(8)]
        yield " ".join(words) + "."
        yield json.dumps(
            {words[0]: words[1], words[2]: [number, number / 3, True, None], words[3]: {words[4]: words[5]}}
        )
    yield from itertools.repeat("Füße, naïve, señor, привет, мир, こんにちは, 世界, 🙂🚀", 30)


def endless(folder: Path) -> dict[str, int]:
    """Return the bias under which a random model never ends by itself."""
    ends = json.loads((folder / "config.json").read_text())["eos_token_id"]
    return {str(token): -100 for token in ends}


def _tokenizer(folder: Path, recipe: Recipe) -> tuple[int, list[int]]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    learned = recipe.vocabulary - len(recipe.special) - len(recipe.plain)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _lines(recipe.seed), trainers.BpeTrainer(vocab_size=learned, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in recipe.special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in recipe.plain])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": recipe.eos[0],
        "pad_token": recipe.special[0],
        "model_max_length": recipe.context,
        "clean_up_tokenization_spaces": False,
    }
    if recipe.template is not None:
        config["chat_template"] = recipe.template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    known = tokenizer.get_vocab()
    return tokenizer.get_vocab_size(), [known[text] for text in recipe.eos]


def _weights(folder: Path, recipe: Recipe, vocabulary: int, eos: list[int]) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map_with_path

    from app.engine.runtime import _kept_file_limit

    with _kept_file_limit():
        from mlx_lm.utils import _get_classes

    config = _config(recipe, vocabulary, eos)
    kind, arguments = _get_classes(config)
    model = kind(arguments.from_dict(config))
    keys = iter(mx.random.split(mx.random.key(recipe.seed), 1024))

    def draw(path: str, array: mx.array) -> mx.array:
        if "norm" in path:
            return mx.ones(array.shape, mx.float32)
        return mx.random.normal(array.shape, scale=0.08, key=next(keys))  # wide enough for varied answers

    model.update(tree_map_with_path(draw, model.parameters()))
    if recipe.half:
        model.set_dtype(mx.bfloat16)
    weights = dict(tree_flatten(model.parameters()))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))


def _config(recipe: Recipe, vocabulary: int, eos: list[int]) -> dict[str, Any]:
    heads = max(2, recipe.hidden // 32)
    config = {
        "model_type": recipe.arch,
        "architectures": [_ARCHITECTURES.get(recipe.arch, recipe.arch)],
        "hidden_size": recipe.hidden,
        "intermediate_size": recipe.hidden * 3,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": recipe.hidden // heads,
        "rms_norm_eps": 1e-6,
        "vocab_size": vocabulary,
        "max_position_embeddings": recipe.context,
        "rope_theta": 10000.0,
        "tie_word_embeddings": recipe.arch != "phi3",
        "torch_dtype": "bfloat16" if recipe.half else "float32",
        "eos_token_id": eos,
        "pad_token_id": 0,
    }
    return config if recipe.window is None else {**config, "sliding_window": recipe.window, "sliding_window_pattern": 2}


if __name__ == "__main__":
    make(Path(sys.argv[1]), RECIPES[sys.argv[2] if len(sys.argv) > 2 else "qwen"])
