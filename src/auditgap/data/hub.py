"""One file of a data set on the Hugging Face Hub, at a stated revision."""

import re
from pathlib import Path

from auditgap.errors import DataError

__all__ = ["fetch"]

ADDRESS = re.compile(r"hub:(?P<repo>[^/@\s]+/[^/@\s]+)@(?P<revision>[^/@\s]+)/(?P<path>\S.*)")


def fetch(source: str) -> Path:
    """Download `hub:org/name@revision/path.jsonl`, or find it in the Hub's cache; the local file.

    Raises:
        DataError: the address lacks a part, huggingface_hub is missing, or the Hub does not give the file.
    """
    address = ADDRESS.fullmatch(source)
    if address is None:
        raise DataError(
            f"expected 'hub:org/name@revision/path.jsonl', got '{source}'; the revision (a commit of the data set) is required, "
            "because the same address without it can give other rows tomorrow"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise DataError(
            f"'{source}' needs huggingface_hub, which is not installed; run pip install 'auditgap[measure]', or download the file"
        ) from None
    try:
        return Path(hf_hub_download(address["repo"], address["path"], repo_type="dataset", revision=address["revision"]))
    except Exception as error:  # the Hub's client raises a dozen unrelated classes; whichever it was stays chained
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"could not get '{source}': {type(error).__name__}: {reason}; check the id, the revision and the network, "
            "or download the file and give its path"
        ) from error
