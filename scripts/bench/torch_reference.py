"""The same work on a checkout of the reference (RVC-Boss/GPT-SoVITS) in PyTorch, with the same weights.

Its own classes compute; only the code around them is here. Weight norm stays in place, as the reference leaves it.
RoBERTa and CNHubert are those of `transformers`, as there; of RoBERTa only the layers whose output is used. This runs
in a process without MLX (`worker`), so weights come as a file's path and its configuration.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from .errors import BenchmarkError, check_tokens

Clock = Callable[[], float]
Config = dict[str, Any]
Sentence = tuple[list[int], list[int], np.ndarray]
"""What a decode is given: phones, the prompt's tokens, features (phones, width)."""
DEVICES = {"cpu": "cpu", "metal": "mps", "cuda": "cuda"}
"""Of PyTorch, by MLX's back end."""
UNUSED = {"torchmetrics.classification": "MulticlassAccuracy", "f5_tts.model": "DiT"}
"""What the reference imports beside inference of v1 and v2: a metric of its training, a network of v3."""


class TorchReference:
    """Makes clocks of the reference's work. Models stay loaded until the next `use`.

    Args:
        checkout: folder of the repository.
        backend: where MLX computes, and PyTorch has to: "cpu", "metal" or "cuda".
        drawing: how tokens are drawn, by the reference's names.

    Raises:
        BenchmarkError: it is no checkout, or PyTorch or something that it imports is missing.
    """

    def __init__(self, checkout: Path, backend: str, drawing: dict[str, float]):
        if not (checkout / "GPT_SoVITS" / "AR").is_dir():
            raise BenchmarkError(f"{checkout} is no checkout of RVC-Boss/GPT-SoVITS: it has no folder GPT_SoVITS/AR")
        os.environ["TQDM_DISABLE"] = "1"
        for name, member in UNUSED.items():
            _stand_in(name, member)
        sys.path[:0] = [str(checkout.resolve()), str(checkout.resolve() / "GPT_SoVITS")]
        self.torch = _module("torch")
        self.decoder = _module("AR.models.t2s_model").Text2SemanticDecoder
        self.sample = _module("AR.models.utils").sample
        self.synthesizer = _module("module.models").SynthesizerTrn
        self.device = DEVICES[backend]
        available = {"cpu": True, "mps": self.torch.backends.mps.is_available(), "cuda": self.torch.cuda.is_available()}
        if not available[self.device]:
            raise BenchmarkError(f"MLX computes on {backend}, where this PyTorch cannot: install a build that does")
        self.drawing = drawing
        self.dtype = self.torch.float32
        self._models: dict[Path, Any] = {}

    @property
    def versions(self) -> dict[str, str]:
        """Of PyTorch, and the threads that it computes with."""
        return {
            "torch": f"{self.torch.__version__} on {self.device}",
            "torch threads": str(self.torch.get_num_threads()),
        }

    def use(self, precision: str) -> None:
        """Compute in this type from now on. The models so far are dropped."""
        self.dtype = getattr(self.torch, precision)
        self._models.clear()
        gc.collect()
        if self.device != "cpu":
            getattr(self.torch, self.device).empty_cache()

    def first_token(self, path: Path, config: Config, given: Sentence) -> Clock:
        """Prefill and the first draw."""
        model = self._gpt(path, config)
        return self.clock(lambda: next(self._chunks(model, given, 2)))

    def steps(self, path: Path, config: Config, given: Sentence, tokens: int) -> Clock:
        """Time from the first token to the last, in the loop that `infer_panel` runs: `tokens` − 1 steps."""
        model = self._gpt(path, config)

        def clock() -> float:
            with self.quiet():
                chunks = self._chunks(model, given, tokens)
                made = next(chunks)
                self.wait()
                start = time.perf_counter()
                made += sum(chunks)
                self.wait()
                seconds = time.perf_counter() - start
            check_tokens(made, tokens)
            return seconds

        return clock

    def batch(self, path: Path, config: Config, batch: Sequence[Sentence], tokens: int) -> Clock:
        """Time of a whole batch, prefill included, in `infer_panel_batch_infer`."""
        model = self._gpt(path, config)
        inputs = [self._inputs(given) for given in batch]
        phones, prompts, bert = ([entry[i][0] for entry in inputs] for i in range(3))
        lengths = self.tensor(np.array([len(row) for row in phones]))
        prompt, rows = self.torch.stack(prompts), []

        def work() -> None:
            rows[:] = model.infer_panel_batch_infer(
                phones, lengths, prompt, bert, early_stop_num=tokens - 1, **self.drawing
            )[0]

        def clock() -> float:
            seconds = self.clock(work)()
            # it drops the last token of a row that was cut off
            check_tokens(sum(len(row) - prompt.shape[1] + 1 for row in rows), len(batch) * tokens)
            return seconds

        return clock

    def sovits(
        self, path: Path, config: Config, codes: np.ndarray, phones: np.ndarray, spectrogram: np.ndarray
    ) -> Clock:
        """`decode` of codes (1, N), phones (1, X), spectrogram (1, T, bins)."""
        settings = {"p_dropout": 0.0, **config["model"], "version": config["version"], "semantic_frame_rate": "25hz"}
        bins = config["data"]["filter_length"] // 2 + 1
        make = self.synthesizer
        model = self._filled(path, lambda: make(bins, 32, **settings), training=("enc_q.", "quantizer."))
        heard = self.tensor(spectrogram.transpose(0, 2, 1))
        given = self.tensor(codes[None]), self.tensor(phones)
        return self.clock(lambda: model.decode(*given, [heard]))

    def cnhubert(self, path: Path, config: Config, samples: np.ndarray) -> Clock:
        """`last_hidden_state` for samples (1, n)."""
        kinds, parametrize = _module("transformers"), self.torch.nn.utils.parametrize

        def make() -> Any:
            model = kinds.HubertModel(kinds.HubertConfig(**_plain(config)))
            conv = model.encoder.pos_conv_embed.conv
            if parametrize.is_parametrized(conv, "weight"):
                parametrize.remove_parametrizations(conv, "weight")
            return model

        return self._encoder(self._filled(path, make, training=("masked_spec_embed",)), samples)

    def roberta(self, path: Path, config: Config, ids: np.ndarray) -> Clock:
        """The hidden state that is used, for token ids (1, T)."""
        kinds = _module("transformers")
        layers = len({name.split(".")[3] for name in _names(path) if name.startswith("bert.encoder.layer.")})
        settings = kinds.BertConfig(**{**_plain(config), "num_hidden_layers": layers})
        make = kinds.BertModel
        return self._encoder(self._filled(path, lambda: make(settings, add_pooling_layer=False), prefix="bert."), ids)

    def attention(self, arrays: Sequence[np.ndarray], times: int) -> Clock:
        """Of queries, keys, values (1, heads, T, width)."""
        given = [self.tensor(x) for x in arrays]
        return self.clock(lambda: self.torch.nn.functional.scaled_dot_product_attention(*given), times)

    def concatenation(self, shape: Sequence[int], positions: int) -> Clock:
        """Keys and values (1, heads, 1, width) as the reference keeps them: (1, T, heads · width)."""
        row = self.tensor(np.ones((1, 1, shape[1] * shape[3]), np.float32))

        def work() -> None:
            keys = values = row[:, :0]
            for _ in range(positions):
                keys, values = self.torch.cat([keys, row], dim=1), self.torch.cat([values, row], dim=1)

        return self.clock(work)

    def convolution(self, x: np.ndarray, out: int, kernel: int, dilation: int) -> Clock:
        """(1, T, in) → (1, T, out)."""
        functions, given = self.torch.nn.functional, self.tensor(x.transpose(0, 2, 1))
        weight, bias = (
            self.tensor(np.ones((out, x.shape[2], kernel), np.float32)),
            self.tensor(np.ones(out, np.float32)),
        )
        padding = dilation * (kernel - 1) // 2
        return self.clock(lambda: functions.conv1d(given, weight, bias, 1, padding, dilation))

    def transposed(self, x: np.ndarray, out: int, kernel: int, stride: int, padding: int) -> Clock:
        """(1, T, in) → (1, T · stride, out)."""
        functions, given = self.torch.nn.functional, self.tensor(x.transpose(0, 2, 1))
        weight, bias = (
            self.tensor(np.ones((x.shape[2], out, kernel), np.float32)),
            self.tensor(np.ones(out, np.float32)),
        )
        return self.clock(lambda: functions.conv_transpose1d(given, weight, bias, stride, padding))

    def sampling(self, logits: np.ndarray, before: np.ndarray, times: int) -> Clock:
        """Logits (1, vocab), which it penalises in place, and the tokens so far (1, n)."""
        given, tokens = self.tensor(logits), self.tensor(before)
        return self.clock(lambda: self.sample(given, tokens, **self.drawing), times)

    def tensor(self, values: np.ndarray) -> Any:
        """On the device; floating-point numbers in the type to compute in."""
        found = self.torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
        return found.to(self.dtype) if found.is_floating_point() else found.long()

    def clock(self, work: Callable[[], Any], times: int = 1) -> Clock:
        """A clock around work, which runs until the device is done."""

        def clock() -> float:
            with self.quiet():
                start = time.perf_counter()
                for _ in range(times):
                    work()
                    self.wait()
                return (time.perf_counter() - start) / times

        return clock

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Without gradients, and without what the reference prints; the device is done with earlier work."""
        self.wait()
        with self.torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            yield

    def wait(self) -> None:
        """Until the device is done."""
        if self.device != "cpu":
            getattr(self.torch, self.device).synchronize()

    def _encoder(self, model: Any, values: np.ndarray) -> Clock:
        given = self.tensor(values)
        return self.clock(lambda: model(given).last_hidden_state)

    def _gpt(self, path: Path, config: Config) -> Any:
        settings = {**config, "embedding_dim": config["hidden_dim"], "dropout": 0.0}
        return self._filled(path, lambda: self.decoder({"model": settings}))

    def _chunks(self, model: Any, given: Sentence, tokens: int) -> Iterator[int]:
        """Decode, yielding the number of new tokens after each step."""
        phones, prompt, bert = self._inputs(given)
        length = self.tensor(np.array([phones.shape[1]]))
        chunks = model.infer_panel_naive(
            phones, length, prompt, bert, early_stop_num=tokens - 1, streaming_mode=True, chunk_length=1, **self.drawing
        )
        for made, _ in chunks:
            yield made.shape[1]

    def _inputs(self, given: Sentence) -> tuple[Any, Any, Any]:
        """Phones (1, X), prompt (1, P), features (1, width, X)."""
        phones, prompt, bert = given
        return self.tensor(np.array([phones])), self.tensor(np.array([prompt])), self.tensor(bert.T[None])

    def _filled(self, path: Path, make: Callable[[], Any], training: tuple[str, ...] = (), prefix: str = "") -> Any:
        """The model that `make` builds, with the weights of a converted file; `training` names what may be missing."""
        if path in self._models:
            return self._models[path]
        load_file = _module("safetensors.torch").load_file
        state = {name.removeprefix(prefix): tensor.float() for name, tensor in load_file(str(path)).items()}
        try:
            with self.quiet():
                model = make()
                _normed(self.torch, model, state)
                left = model.load_state_dict(state, strict=False)
        except (RuntimeError, TypeError) as error:
            line = " ".join(str(error).split())[:200]
            raise BenchmarkError(
                f"the reference cannot load {path.name} ({line}): its sizes are hard-wired, so measure an official"
                " voice or --random v2"
            ) from None
        missing = [name for name in left.missing_keys if not name.startswith(training)]
        if missing or left.unexpected_keys:
            names = ", ".join([*missing, *left.unexpected_keys][:3])
            raise BenchmarkError(f"the reference has other tensors than {path}: {names}")
        self._models[path] = model.to(self.device).to(self.dtype).eval()
        return self._models[path]


def _module(name: str) -> Any:
    """Raises `BenchmarkError` where it, or what it imports, is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise BenchmarkError(
            f"the reference needs {missing.name}, which is not installed: pip install {missing.name}"
        ) from None


def _stand_in(name: str, member: str) -> None:
    """A module that is only imported."""
    *parents, _ = name.split(".")
    for module in (*parents, name):
        sys.modules.setdefault(module, types.ModuleType(module))
    setattr(sys.modules[name], member, lambda *_, **__: None)


def _normed(torch: Any, model: Any, state: dict[str, Any]) -> None:
    """Split weights as the model's weight norm has them: direction v and magnitude g = ‖v‖, so that g · v / ‖v‖ = v."""
    for name in [name for name, _ in model.named_parameters() if name.endswith(".weight_g")]:
        stem = name.removesuffix("_g")
        if stem in state:
            weight = state.pop(stem)
            state[stem + "_v"] = weight
            state[name] = torch.linalg.vector_norm(weight.flatten(1), dim=1).reshape(-1, *[1] * (weight.dim() - 1))


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="np") as file:
        return list(file.keys())


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """An encoder's configuration without what conversion adds."""
    return {name: value for name, value in config.items() if name not in ("dtype", "quantization", "model_type")}
