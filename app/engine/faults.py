"""Every way in which a model cannot be had, each with its own message and remedy."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from app.engine.errors import CancelledLoadError, ModelError
from app.errors import SluiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Fault(NamedTuple):
    """One line of the error map: which exception, the code, the status, and what to say."""

    fits: Callable[[BaseException], bool]
    code: str
    status: int
    say: str


def _named(*names: str) -> Callable[[BaseException], bool]:
    """Test an exception's class by name, its parents included, so that nothing heavy is imported for it."""
    return lambda error: any(kind.__name__ in names for kind in type(error).__mro__)


def _says(*words: str) -> Callable[[BaseException], bool]:
    return lambda error: any(word in str(error) for word in words)


def _both(*tests: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
    return lambda error: all(test(error) for test in tests)


def _status(*codes: int) -> Callable[[BaseException], bool]:
    return lambda error: getattr(getattr(error, "response", None), "status_code", None) in codes


def _errno(*numbers: int) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, OSError) and error.errno in numbers


# First match wins, and a cause is looked at before what was raised because of it, so special cases stand first.
_FAULTS = (
    _Fault(
        _both(_named("GatedRepoError"), _status(403)),
        "model_gated",
        403,
        "{model} is gated and your token has no access: accept its licence at https://huggingface.co/{model}",
    ),
    _Fault(
        _named("GatedRepoError"),
        "model_gated",
        401,
        "{model} is gated: accept its licence at https://huggingface.co/{model} and set HF_TOKEN",
    ),
    _Fault(
        _named("RevisionNotFoundError"),
        "revision_not_found",
        404,
        "{model} has no such revision on the Hub: name an existing one",
    ),
    _Fault(
        _named("RepositoryNotFoundError"),
        "model_not_found",
        404,
        "{model} is not on the Hugging Face Hub, or it is private: check the spelling, or set HF_TOKEN",
    ),
    _Fault(
        _named("OfflineModeIsEnabled"),
        "model_not_downloaded",
        503,
        "{model} is not downloaded and LOCAL_ONLY (or HF_HUB_OFFLINE) forbids connections: run "
        "'hf download {model}' where there is a network, or name a local folder",
    ),
    _Fault(
        _named("IncompleteSnapshotError"),
        "download_incomplete",
        503,
        "the download of {model} broke off earlier and connections are forbidden: run 'hf download {model}' where "
        "there is a network ({error})",
    ),
    _Fault(_status(429), "hub_busy", 503, "the Hugging Face Hub refuses more requests just now: try again in a minute"),
    _Fault(
        _status(500, 502, 503, 504),
        "hub_busy",
        503,
        "the Hugging Face Hub is out of order just now: try again later, or name a local folder",
    ),
    _Fault(
        _errno(errno.ENOSPC, errno.EDQUOT),
        "disk_full",
        507,
        "no room on the disk for {model}: free some, or point HF_HOME to a larger one",
    ),
    _Fault(
        _errno(errno.EACCES, errno.EPERM, errno.EROFS),
        "permission_denied",
        500,
        "no permission for the files of {model}: {error}",
    ),
    _Fault(
        _named("RemoteProtocolError", "ReadError", "ChunkedEncodingError", "IncompleteRead"),
        "download_cut",
        503,
        "the download of {model} broke off: ask again, finished files are kept",
    ),
    _Fault(
        _named("ConnectError", "ConnectTimeout", "ReadTimeout", "TimeoutException", "ConnectionError"),
        "hub_unreachable",
        503,
        "{model} is not downloaded and the Hugging Face Hub cannot be reached: check the network or HF_ENDPOINT, run "
        "'hf download {model}' where there is a network, or name a local folder (mlx/<absolute path>)",
    ),
    _Fault(
        _named("LocalEntryNotFoundError"),
        "model_not_downloaded",
        503,
        "{model} is not downloaded and the Hugging Face Hub cannot be reached: check the network",
    ),
    _Fault(
        _named("HFValidationError"),
        "model_not_found",
        404,
        "{model} is neither an existing folder nor a hub id such as mlx-community/Qwen2.5-7B-Instruct-4bit",
    ),
    _Fault(
        _both(_named("FileNotFoundError"), _says("tokenizer")),
        "tokenizer_missing",
        422,
        "{model} has no tokenizer (tokenizer.json): download the whole model again",
    ),
    _Fault(
        _both(_named("FileNotFoundError"), _says("safetensors")),
        "weights_missing",
        422,
        "{model} has no model*.safetensors: GGUF and PyTorch files need converting first (mlx_lm.convert)",
    ),
    _Fault(
        _named("FileNotFoundError", "NotADirectoryError"),
        "files_missing",
        404,
        "{model}: {error}: the folder is missing or has no config.json; check the path",
    ),
    _Fault(
        _says("[load_safetensors]", "[read]", "cut off", "Git LFS", "no safetensors file"),
        "weights_corrupt",
        422,
        "the weights of {model} are incomplete or corrupt: delete them and download again ({error})",
    ),
    _Fault(
        _both(_named("ValueError"), _says("not supported")),
        "architecture_unknown",
        422,
        "{model} has an architecture that mlx-lm does not know: update mlx-lm or choose another model ({error})",
    ),
    _Fault(
        _says("trust_remote_code", "custom module", "custom code"),
        "custom_code",
        422,
        "{model} wants to run code of its own, which is never done here: choose a model of a known architecture",
    ),
    _Fault(
        _both(_named("ValueError"), _says("shape", "parameters not in model", "Missing", "Received")),
        "weights_mismatch",
        422,
        "the weights of {model} do not fit its config.json: download the model again ({error})",
    ),
    _Fault(
        _named("JSONDecodeError", "UnicodeDecodeError"),
        "files_corrupt",
        422,
        "a JSON file of {model} is broken: download the model again ({error})",
    ),
    _Fault(
        _named("TypeError", "KeyError"),
        "config_incomplete",
        422,
        "the config.json of {model} lacks something its architecture needs ({error})",
    ),
    _Fault(
        _both(_named("RuntimeError", "MemoryError"), _says("alloc", "memory", "Memory")),
        "out_of_memory",
        507,
        "not enough memory to load {model}: lower MLX_MEMORY_GB so that others leave first, or choose a smaller one",
    ),
)


def explain(error: BaseException, model: str) -> SluiceError:
    """Return what to tell a caller about an error that came up while a model was fetched or loaded."""
    if isinstance(error, SluiceError):
        return error
    if type(error).__name__ == "CancelledError":
        return CancelledLoadError(f"loading {model} was cancelled")
    chain = list(_chain(error))
    for fault in _FAULTS:
        for link in chain:
            if fault.fits(link):
                message = fault.say.format(model=model, error=_first_line(link))
                return ModelError(message, status=fault.status, code=fault.code)
    return ModelError(f"{model} could not be loaded: {type(error).__name__}: {_first_line(error)}", status=500)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
