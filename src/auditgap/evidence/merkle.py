"""An append-only Merkle tree with RFC 6962 hashing: one root for the whole ledger, short proofs for its parts.

1. A leaf is `sha256(0x00 || entry)`, an inner node `sha256(0x01 || left || right)`, the empty tree `sha256("")`.
2. A tree of n leaves splits at the largest power of two below n.
3. An inclusion proof is the list of sibling hashes from a leaf to the root; a consistency proof shows that the tree of the first
   m leaves is a prefix of the tree of n.

Trees are given by their leaf hashes. Source: RFC 6962 section 2.1; the two
verifiers are those of RFC 9162 sections 2.1.3.2 and 2.1.4.2.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one ledger entry as a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier(NamedTuple):
    """What is left of a tree once only appending matters: the roots of its perfect subtrees, largest first.

    Appending costs O(log n) and gives a new frontier; the old one stays as it was.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> "Frontier":
        """The frontier after one more leaf hash."""
        nodes, carry = list(self.nodes), self.size
        while carry & 1:
            leaf, carry = node_hash(nodes.pop(), leaf), carry >> 1
        return Frontier(self.size + 1, (*nodes, leaf))

    def root(self) -> bytes:
        """The root hash of the whole tree."""
        if not self.nodes:
            return EMPTY_ROOT
        *rest, found = self.nodes
        for node in reversed(rest):
            found = node_hash(node, found)
        return found


def root(leaves: Iterable[bytes]) -> bytes:
    """The root hash of the tree over these leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    return frontier.root()


def inclusion_proof(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """The sibling hashes that lead from leaf `index` to the root, lowest first.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} asked, the tree has {len(leaves)}")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(index, leaves[:split]), root(leaves[split:])]
    return [*inclusion_proof(index - split, leaves[split:]), root(leaves[:split])]


def verify_inclusion(leaf: bytes, index: int, *, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """True if `leaf` is leaf `index` of the tree of `size` leaves with this root."""
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def consistency_proof(old_size: int, leaves: Sequence[bytes]) -> list[bytes]:
    """The hashes that show that the first `old_size` leaves are a prefix of `leaves`; empty if nothing or nothing new was there.

    Raises:
        IndexError: the old tree is larger than this one.
    """
    if not 0 <= old_size <= len(leaves):
        raise IndexError(f"a prefix of {old_size} leaves asked, the tree has {len(leaves)}")
    return [] if old_size in (0, len(leaves)) else _subproof(old_size, leaves, whole=True)


def verify_consistency(*, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """True if the tree of `size` leaves only appends to the one of `old_size`."""
    if old_size == 0:
        return old_root == EMPTY_ROOT and not proof
    if old_size == size:
        return old_root == root and not proof
    if not 0 < old_size < size or not proof:
        return False
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old_found, new_found = node_hash(sibling, old_found), node_hash(sibling, new_found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_found = node_hash(new_found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old_found == old_root and new_found == root


def _split(n: int) -> int:
    """The largest power of two below n (n >= 2)."""
    return 1 << ((n - 1).bit_length() - 1)


def _subproof(old_size: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root(leaves)]
    split = _split(len(leaves))
    if old_size <= split:
        return [*_subproof(old_size, leaves[:split], whole=whole), root(leaves[split:])]
    return [*_subproof(old_size - split, leaves[split:], whole=False), root(leaves[:split])]
