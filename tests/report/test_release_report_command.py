"""`auditgap release report` as a user meets it: signed and unsigned files, one page, clear refusals."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from example_release import broken, case, delta, parity, promotion, run

from auditgap.cli import main
from auditgap.records import Record
from auditgap.release.promotion import sign_record


@pytest.fixture
def key(tmp_path: Path) -> tuple[Ed25519PrivateKey, Path]:
    """A private key, and the file with its public half."""
    private = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    public = tmp_path / "key.pub"
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    code = 0
    try:
        main(["release", "report", *(str(arg) for arg in args)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def plain(folder: Path, name: str, record: Record, **more: object) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record.model_dump(mode="json") | more))
    return path


def signed(folder: Path, name: str, record: Record, key: Ed25519PrivateKey) -> Path:
    path = folder / f"{name}.dsse.json"
    path.write_bytes(sign_record(record, [key]))
    return path


# Planted truth found


def test_what_the_commands_print_becomes_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        plain(tmp_path, "run", run(case(), broken())),
        plain(tmp_path, "parity", parity(delta()), changes={"system_prompt main": "sha256:..."}),
        plain(tmp_path, "promotion", promotion()),
    ]
    for name in ("r.html", "new/r.md"):
        code, out, err = call(capsys, *files, "--out", tmp_path / name)
        assert (code, out.strip(), err) == (0, str(tmp_path / name), "")
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert "RIC-002-planted" in page and "without a verified signature" in page and "Pass, with warnings" in page


def test_a_signature_that_holds_is_shown_and_takes_the_warning_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: tuple[Ed25519PrivateKey, Path]
) -> None:
    private, public = key
    one, two = signed(tmp_path, "run", run(), private), signed(tmp_path, "promotion", promotion(), private)
    assert call(capsys, one, two, "--key", public, "--out", tmp_path / "r.md")[0] == 0
    page = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "without a verified signature" not in page and "no verified signature" not in page


# Bad input


def test_a_signed_file_needs_its_key_and_the_right_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: tuple[Ed25519PrivateKey, Path]
) -> None:
    _, public = key
    path = signed(tmp_path, "run", run(), Ed25519PrivateKey.from_private_bytes(b"\x08" * 32))
    out = tmp_path / "r.html"
    code, _, err = call(capsys, path, "--out", out)
    assert code == 2 and "give --key" in err and not out.exists()
    code, _, err = call(capsys, path, "--key", public, "--out", out)
    assert code == 4 and "expected signatures by 1 of the 1 trusted keys, got 0" in err and not out.exists()


def test_a_changed_signed_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: tuple[Ed25519PrivateKey, Path]
) -> None:
    private, public = key
    path = signed(tmp_path, "run", run(broken()), private)
    honest = json.loads(path.read_bytes())
    honest["payload"] = json.loads(sign_record(run(case()), [private]))["payload"]
    path.write_text(json.dumps(honest, separators=(",", ":"), sort_keys=True))
    code, _, err = call(capsys, path, "--key", public, "--out", tmp_path / "r.html")
    assert code == 4 and "the signatures do not hold" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("[]", "expected a record of kind integrity run or parity or promotion, got schema_version None"),
        ('{"schema_version": "auditgap.dev/release-check/v1"}', "got schema_version 'auditgap.dev/release-check/v1'"),
        ('{"schema_version": "auditgap.dev/parity/v1"}', "before: Field required"),
        ('{"schema_version": "auditgap.dev/parity/v1", "schema_version": "x"}', "twice"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    code, _, err = call(capsys, tmp_path / "x.json", "--out", tmp_path / "r.html")
    assert code == 2 and message in err and "x.json" in err and not (tmp_path / "r.html").exists()


def test_two_parities_another_format_and_no_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = plain(tmp_path, "a", parity()), plain(tmp_path, "b", parity(delta()))
    code, _, err = call(capsys, one, two, "--out", tmp_path / "r.html")
    assert code == 2 and "expected one parity record, got 2" in err
    code, _, err = call(capsys, one, "--out", tmp_path / "r.pdf")
    assert code == 2 and "written as .html or .md, got 'r.pdf'" in err
    assert call(capsys)[0] == 2
