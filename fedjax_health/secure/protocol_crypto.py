"""The primitives of the protocol, each with its context: every one is the library `cryptography`'s."""

from __future__ import annotations

import hashlib
import secrets
import struct

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedjax_health.secure.protocol_errors import BadSignature, TamperedShare, WrongKey

NONCE_BYTES = 12
_LABEL = b"fedjax-health secure aggregation 1 "


def context(purpose: bytes, round_id: int, *ids: int) -> bytes:
    """Bytes that no two uses share: label, purpose, round u64, ids u32 in the order given."""
    return _LABEL + purpose + b"\0" + struct.pack(f">Q{len(ids)}I", round_id, *ids)


def derive(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes; info: of `context`."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def public_bytes(private: bytes) -> bytes:
    """X25519 public key of a private one; both 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, info: bytes) -> bytes:
    """32-byte key of two clients: HKDF of the X25519 shared secret (RFC 7748).

    Args:
      private: own private key, 32 bytes.
      public: the other's public key, 32 bytes.
      info: of `context`.

    Raises:
      WrongKey: the public key is of small order, so that the secret would be known to everyone.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise WrongKey("a public key is of small order: it gives a secret that everyone knows") from error
    return derive(shared, info)


def mask_words(key: bytes, words: int) -> np.ndarray:
    """u32[words] of AES-256-CTR's key stream; the key is of one use, so that the counter starts at 0."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * words)), "<u4")


def self_mask(seed: bytes, round_id: int, client: int, words: int) -> np.ndarray:
    """u32[words] of a client's own seed."""
    return mask_words(derive(seed, context(b"self mask", round_id, client)), words)


def pair_mask(private: bytes, public: bytes, round_id: int, own: int, other: int, words: int) -> np.ndarray:
    """u32[words] that two clients share, with the sign of `own`: plus for the smaller id, minus for the greater.

    Args:
      private: mask key of `own`.
      public: mask key of `other`.
      round_id, own, other: bound into the key.
      words: d.

    Raises:
      WrongKey: see `agree`.
    """
    low, high = min(own, other), max(own, other)
    mask = mask_words(agree(private, public, context(b"pair mask", round_id, low, high)), words)
    return mask if own < other else np.negative(mask)


def commitment(seed: bytes, round_id: int, client: int) -> bytes:
    """SHA-256 of a seed and its context; hides the seed since that has 256 bits of entropy."""
    return hashlib.sha256(context(b"commitment", round_id, client) + seed).digest()


def seal(key: bytes, plain: bytes, associated: bytes) -> bytes:
    """Random nonce, AES-256-GCM ciphertext, tag."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, associated)


def unseal(key: bytes, box: bytes, associated: bytes) -> bytes:
    """Inverse of `seal`.

    Raises:
      TamperedShare: the key, the box or the associated data is not the sender's.
    """
    try:
        return AESGCM(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], associated)
    except InvalidTag as error:
        raise TamperedShare("an encrypted share does not authenticate") from error


def sign(private: bytes, data: bytes) -> bytes:
    """Ed25519 signature (RFC 8032), 64 bytes; private: 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(private).sign(data)


def verifying_bytes(private: bytes) -> bytes:
    """Ed25519 public key of a private one; both 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def verify(public: bytes, signature: bytes, data: bytes, whose: str) -> None:
    """Checks an Ed25519 signature.

    Raises:
      BadSignature: it is not of this key on this data; names `whose`.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature as error:
        raise BadSignature(f"the signature of {whose} does not verify with its registered key") from error


def keys_context(round_id: int, client: int, mask_key: bytes, share_key: bytes) -> bytes:
    """What a client signs when it advertises keys."""
    return context(b"advertise", round_id, client) + mask_key + share_key


def survivors_context(round_id: int, survivors: tuple[int, ...]) -> bytes:
    """What a client signs when it accepts a list of survivors."""
    return context(b"survivors", round_id, *survivors)
