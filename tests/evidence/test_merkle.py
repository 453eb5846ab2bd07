import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.evidence import merkle
from auditgap.evidence.merkle import Frontier, leaf_hash, root

CT_ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
trees = st.integers(1, 40).map(lambda n: [leaf_hash(b"e%d" % i) for i in range(n)])


def _by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + _by_definition(leaves[:k]) + _by_definition(leaves[k:])).digest()


def _flip(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(altered)


def test_root_of_101_entries_is_that_of_pymerkle():
    # pymerkle 7.0.0, entries e0 ... e100 in ASCII
    expected = "181f0ad08ace3ad346b4f223935ddb1a56795712d1e526303b21ae4b0e10b00e"
    assert root([leaf_hash(b"e%d" % i) for i in range(101)]).hex() == expected


def test_root_is_that_of_the_certificate_transparency_reference():
    # google/certificate-transparency, merkle_tree_test: eight entries
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in CT_ENTRIES]
    assert root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert root(leaves[:7]).hex() == "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"


def test_empty_tree_has_the_hash_of_nothing():
    assert root([]) == merkle.EMPTY_ROOT == hashlib.sha256(b"").digest()


@given(trees)
def test_frontier_gives_the_root_of_every_prefix(leaves):
    frontier = Frontier()
    for n, leaf in enumerate(leaves, 1):
        frontier = frontier.append(leaf)
        assert frontier.size == n
        assert frontier.root() == _by_definition(leaves[:n])
        assert len(frontier.nodes) == n.bit_count()


@given(trees)
def test_every_inclusion_proof_verifies(leaves):
    top = root(leaves)
    for index, leaf in enumerate(leaves):
        proof = merkle.inclusion_proof(index, leaves)
        assert merkle.verify_inclusion(leaf, index, size=len(leaves), root=top, proof=proof)
        assert len(proof) <= len(leaves).bit_length()


@given(trees, st.data())
def test_inclusion_proof_with_one_flipped_bit_fails(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    bit, part = data.draw(st.integers(0, 255)), data.draw(st.integers(0, 40))
    proof, top, leaf = merkle.inclusion_proof(index, leaves), root(leaves), leaves[index]
    assert not merkle.verify_inclusion(_flip(leaf, bit), index, size=len(leaves), root=top, proof=proof)
    assert not merkle.verify_inclusion(leaf, index, size=len(leaves), root=_flip(top, bit), proof=proof)
    if proof:
        altered = [_flip(node, bit) if i == part % len(proof) else node for i, node in enumerate(proof)]
        assert not merkle.verify_inclusion(leaf, index, size=len(leaves), root=top, proof=altered)
        assert not merkle.verify_inclusion(leaf, index, size=len(leaves), root=top, proof=proof[:-1])
    assert not merkle.verify_inclusion(leaf, index, size=len(leaves), root=top, proof=[*proof, top])


@given(trees, st.data())
def test_inclusion_proof_of_another_place_fails(leaves, data):
    index, other = data.draw(st.integers(0, len(leaves) - 1)), data.draw(st.integers(-1, len(leaves)))
    proof = merkle.inclusion_proof(index, leaves)
    verified = merkle.verify_inclusion(leaves[index], other, size=len(leaves), root=root(leaves), proof=proof)
    assert verified == (other == index)


@given(trees)
def test_every_prefix_is_consistent(leaves):
    top = root(leaves)
    for old_size in range(len(leaves) + 1):
        proof, old_root = merkle.consistency_proof(old_size, leaves), root(leaves[:old_size])
        assert merkle.verify_consistency(old_size=old_size, old_root=old_root, size=len(leaves), root=top, proof=proof)


@given(trees, st.data())
def test_consistency_proof_with_one_flipped_bit_fails(leaves, data):
    old_size, bit = data.draw(st.integers(0, len(leaves))), data.draw(st.integers(0, 255))
    proof, old_root, top = merkle.consistency_proof(old_size, leaves), root(leaves[:old_size]), root(leaves)
    size = len(leaves)
    assert not merkle.verify_consistency(old_size=old_size, old_root=_flip(old_root, bit), size=size, root=top, proof=proof)
    if old_size:
        assert not merkle.verify_consistency(old_size=old_size, old_root=old_root, size=size, root=_flip(top, bit), proof=proof)
    for i in range(len(proof)):
        altered = [_flip(node, bit) if i == j else node for j, node in enumerate(proof)]
        assert not merkle.verify_consistency(old_size=old_size, old_root=old_root, size=size, root=top, proof=altered)
    assert not merkle.verify_consistency(old_size=old_size, old_root=old_root, size=size, root=top, proof=[*proof, top])


@given(trees, st.data())
def test_rewritten_prefix_is_not_consistent(leaves, data):
    old_size = data.draw(st.integers(1, len(leaves)))
    altered = data.draw(st.integers(0, old_size - 1))
    rewritten = [leaf_hash(b"other") if i == altered else leaf for i, leaf in enumerate(leaves)]
    proof, old_root = merkle.consistency_proof(old_size, rewritten), root(leaves[:old_size])
    top = root(rewritten)
    assert not merkle.verify_consistency(old_size=old_size, old_root=old_root, size=len(leaves), root=top, proof=proof)


def test_a_node_is_not_a_leaf():
    """Second-preimage attack: presenting an inner node's children as an entry."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != merkle.node_hash(left, right)


@pytest.mark.parametrize("index", [-1, 3])
def test_proof_of_no_leaf_is_refused(index):
    leaves = [leaf_hash(b"%d" % i) for i in range(3)]
    with pytest.raises(IndexError, match="the tree has 3"):
        merkle.inclusion_proof(index, leaves)
    with pytest.raises(IndexError, match="the tree has 3"):
        merkle.consistency_proof(index if index < 0 else 4, leaves)
