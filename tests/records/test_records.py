"""Records: closed, strict, canonical; access is a lattice."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from auditgap import records
from auditgap.errors import PlanError
from auditgap.records import (
    AXES,
    Access,
    Deployment,
    Independence,
    Information,
    Interval,
    Measured,
    ModelAccess,
    NotMeasured,
    Variants,
)

accesses = st.builds(
    Access,
    model=st.sampled_from(list(ModelAccess)),
    variants=st.sampled_from(list(Variants)),
    information=st.sampled_from(list(Information)),
    deployment=st.sampled_from(list(Deployment)),
    time=st.integers(0, 250),
    independence=st.sampled_from(list(Independence)),
)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite)
def test_numbers_survive_both_json_forms(value: float, other: float) -> None:
    interval = Interval(low=min(value, other), high=max(value, other), level=0.95, method="wilson")
    measured = Measured(name="auroc", value=value, unit="auroc", n=3, interval=interval)
    assert Measured.model_validate_json(measured.model_dump_json()) == measured
    assert Measured.model_validate_json(measured.canonical()) == measured


def test_signed_bytes_hold_decimal_strings_and_people_get_numbers() -> None:
    measured = Measured(name="auroc", value=0.5, unit="auroc", n=3, interval=Interval.exact(0.5))
    assert json.loads(measured.canonical())["value"] == "0.5"
    assert json.loads(measured.model_dump_json())["value"] == 0.5


def test_key_order_does_not_change_the_digest() -> None:
    document = json.loads(Access().model_dump_json())
    assert Access.parse(dict(reversed(document.items())), where="test").digest() == Access().digest()


@given(accesses, accesses, accesses)
def test_access_is_a_lattice(a: Access, b: Access, c: Access) -> None:
    assert a.meet(b) == b.meet(a) and a.join(b) == b.join(a)
    assert a.meet(b.meet(c)) == a.meet(b).meet(c)
    assert a.meet(a.join(b)) == a == a.join(a.meet(b))
    assert a.covers(a.meet(b)) and a.join(b).covers(a) and Access.top().covers(a) and a.covers(Access())
    assert a.covers(b) == all(a.rank(axis) >= b.rank(axis) for axis in AXES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "much", None, True])
def test_a_value_that_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Measured(name="auroc", value=value, unit="auroc", n=3, interval=Interval.exact(0.5))  # type: ignore[arg-type]


def test_an_interval_upside_down_is_refused() -> None:
    with pytest.raises(ValidationError, match="low <= high"):
        Interval(low=0.9, high=0.1, level=0.95, method="wilson")


def test_an_unknown_field_is_named_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match=r"plan.yaml: .*reasn.*known fields: status, name, reason"):
        NotMeasured.parse({"name": "x", "reason": "y", "reasn": "z"}, where="plan.yaml")


def test_a_file_is_digested_as_it_is_and_named_from_its_root(tmp_path: Path) -> None:
    file = tmp_path / "weights" / "a.bin"
    file.parent.mkdir()
    file.write_bytes(content := b"x" * 300_000)
    whole = records.FileDigest.of(file, root=tmp_path)
    assert (whole.path, whole.content, whole.size) == ("weights/a.bin", records.digest_of(content), 300_000)
    assert records.FileDigest.of(file) == whole.model_copy(update={"path": "a.bin"})
    file.write_bytes(content + b"y")
    assert records.FileDigest.of(file).content != whole.content
    with pytest.raises(FileNotFoundError):
        records.FileDigest.of(tmp_path / "none")


def test_a_subject_is_its_content_not_its_name() -> None:
    file = records.FileDigest(path="model.safetensors", content="sha256:" + "0" * 64, size=1)
    subject = records.Subject(name="a", architecture="X", weights=(file,), tokenizer=(), dtype="float32", n_parameters=1)
    assert subject.model_copy(update={"name": "b", "revision": "c"}).digest() == subject.digest()
    assert subject.model_copy(update={"dtype": "bfloat16"}).digest() != subject.digest()


def test_a_registration_signed_before_references_existed_keeps_its_bytes() -> None:
    card = (
        '{"blind_spots":["b"],"citation":"c","controls":["c"],"data":"pairs","failure_modes":[],"family":"behavioural",'
        '"hypothesis":"h","name":"i","needs":"M1","version":"1"}'
    )
    signed = (
        f'{{"card":{card},"config":{{}},"data":[],"registered_at":"2026-11-21T08:00:00Z","schema_version":'
        f'"auditgap.dev/registration/v1","seed":0,"step":"s","subject":"sha256:{"0" * 64}","thresholds":[]}}'
    ).encode()
    registration = records.Registration.model_validate_json(signed)
    assert registration.canonical() == signed
    later = registration.model_copy(update={"references": {"base": "sha256:" + "1" * 64}})
    assert later.spec() != registration.spec()


def test_records_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Access().time = 3  # type: ignore[misc]


def test_the_public_names_are_sorted_and_present() -> None:
    assert records.__all__ == sorted(records.__all__)
    assert all(hasattr(records, name) for name in records.__all__)
