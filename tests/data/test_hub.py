"""Files of the Hub: fetched at a revision, and refused plainly without one, without the client or without a network."""

import sys

import huggingface_hub
import pytest

from auditgap.data import load
from auditgap.errors import DataError

SOURCE = "hub:org/name@0123abc/folder/rows.jsonl"


def test_the_file_is_fetched_at_its_revision(monkeypatch, tmp_path):
    asked = []

    def hf_hub_download(repo_id, filename, *, repo_type, revision):
        asked.append((repo_id, filename, repo_type, revision))
        path = tmp_path / "blob"
        path.write_text('{"prompt": "Hello."}\n', encoding="utf-8")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    data = load(SOURCE, "prompts")
    assert asked == [("org/name", "folder/rows.jsonl", "dataset", "0123abc")]
    assert data.prompts == ["Hello."]
    assert (data.name, data.ref().source) == ("rows", SOURCE)


@pytest.mark.parametrize(
    "source", ["hub:org/name/rows.jsonl", "hub:name@main/rows.jsonl", "hub:org/name@/rows.jsonl", "hub:org/name@rows.jsonl"]
)
def test_an_address_without_its_parts_is_refused(source):
    with pytest.raises(DataError, match=r"expected 'hub:org/name@revision/path.jsonl'.*the revision .* is required"):
        load(source, "prompts")


def test_a_missing_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"needs huggingface_hub.*pip install 'auditgap\[measure\]'"):
        load(SOURCE, "prompts")


def test_the_real_client_offline_is_refused(monkeypatch, tmp_path):
    """No mock: the suite runs with HF_HUB_OFFLINE=1, so the client itself refuses."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"could not get 'hub:org/name@0123abc.*check the id, the revision and the network"):
        load(SOURCE, "prompts")
