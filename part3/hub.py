"""Files of the Hugging Face hub, and one sentence for each way in which it fails."""

from pathlib import Path

from inputs import InputError

CONNECT_TIMEOUT_S = 5.0
NETWORK_ERRORS = {"NetworkError", "TimeoutException", "ProxyError", "ProtocolError", "ConnectionError", "Timeout"}


def download_from_hub(repository: str, filename: str) -> Path:
    """Path of a file of the hub in huggingface_hub's cache, downloaded if it is not there.

    Raises:
        InputError: it cannot be had; the message has the reason.
    """
    import huggingface_hub  # here, since most runs download nothing
    from huggingface_hub import constants, errors

    host = constants.ENDPOINT
    wanted = f"{filename} of {repository}"
    cached = isinstance(huggingface_hub.try_to_load_from_cache(repository, filename), str)
    if not cached and not constants.HF_HUB_OFFLINE:
        _check_answers(repository, filename)
    verbosity = huggingface_hub.utils.logging.get_verbosity()
    huggingface_hub.utils.logging.set_verbosity_error()  # its warnings about retries say less than the errors below
    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename))
    except Exception as error:  # those of the hub, its HTTP client, hf_xet and the disk have no other base in common
        not_cached = isinstance(error, errors.LocalEntryNotFoundError)
        cause = error.__cause__ if not_cached and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        not_there = (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError)
        if not_cached and constants.HF_HUB_OFFLINE:
            message = (f"{wanted} is not in the cache, and HF_HUB_OFFLINE forbids to download it: unset it once, or "
                       "give the folder of a model")  # fmt: skip
        elif status == 404 or isinstance(cause, not_there):
            message = f"{host} has no {wanted}: check HF_ENDPOINT, or give the folder of a model"
        elif status is not None:
            message = _error_status(host, wanted, status)
        elif isinstance(cause, errors.FileMetadataError):
            message = (f"{host} does not answer as a Hugging Face hub when asked for {wanted}: check HF_ENDPOINT and "
                       "the proxy, or give the folder of a model")  # fmt: skip
        elif not_cached:
            message = (f"{wanted} is not in the cache, and {host} cannot be reached: connect to the network, set "
                       "HF_ENDPOINT to a mirror, or give the folder of a model")  # fmt: skip
        else:
            message = (f"downloading {wanted} from {host} failed ({first_line(error)}): try again, or give the folder "
                       "of a model")  # fmt: skip
        raise InputError(message) from error
    finally:
        huggingface_hub.utils.logging.set_verbosity(verbosity)


def _check_answers(repository: str, filename: str) -> None:
    """Ask once for a file, where huggingface_hub would ask again and again for half a minute.

    Raises:
        InputError: the server cannot be reached, or is out of order.
    """
    import huggingface_hub
    from huggingface_hub import constants

    host, wanted = constants.ENDPOINT, f"{filename} of {repository}"
    url = huggingface_hub.hf_hub_url(repository, filename)
    try:
        answer = huggingface_hub.get_session().head(url, timeout=min(CONNECT_TIMEOUT_S, constants.HF_HUB_ETAG_TIMEOUT))
    except Exception as error:  # those of httpx or requests, by the version of huggingface_hub
        if NETWORK_ERRORS.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            return  # no error of the network; huggingface_hub will say it
        raise InputError(f"{wanted} is not in the cache, and {host} cannot be reached: connect to the network, set "
                         "HF_ENDPOINT to a mirror, or give the folder of a model "
                         f"(the reason: {first_line(error)})") from error  # fmt: skip
    if answer.status_code == 429 or answer.status_code >= 500:
        raise InputError(_error_status(host, wanted, answer.status_code))


def _error_status(host: str, wanted: str, status: int) -> str:
    return (f"{host} answered with the HTTP error {status} when asked for {wanted}: try again later, set "
            "HF_ENDPOINT to a mirror, or give the folder of a model")  # fmt: skip


def first_line(error: Exception) -> str:
    """The first line of an error's message, as part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
