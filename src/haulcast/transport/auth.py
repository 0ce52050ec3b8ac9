"""Who is there: bearer tokens (JWT, RFC 7519), verified with any of several keys.

1. Each key has an id (`kid`) and exactly one algorithm. The token's `kid` chooses the key, and the key's algorithm is
   the only one tried: what the token's header claims is compared, never believed (RFC 8725, section 3.1).
2. A token without a `kid` is accepted only while there is exactly one key; which key to try is never guessed.
3. Required claims: `sub`, `tenant` (both match `ID_PATTERN`), `role`, `exp`. `iat` and `nbf` may be ahead of our clock
   by `LEEWAY_S`; `exp` gets no leeway, because a connection is closed at that moment.
4. A token with an audience (`aud`) is meant for whoever it names: accepted only if that is the audience configured here
   (RFC 7519, section 4.1.3).
5. Whoever brings a bad token is told one sentence. The log says which check it failed, with nothing that it contained:
   an operator has to be able to set up an issuer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, NoReturn, TypeAlias

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from msgspec import UNSET, UnsetType

from haulcast.domain.ids import ID_FORM, TenantId, is_id
from haulcast.errors import ConfigError, ErrorCode, RequestError
from haulcast.ports import Role

LEEWAY_S = 10
MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: a key of the size of the hash or larger."""
MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""

PublicKey: TypeAlias = bytes | RSAPublicKey | EllipticCurvePublicKey
PrivateKey: TypeAlias = bytes | RSAPrivateKey | EllipticCurvePrivateKey


class Algorithm(StrEnum):
    """How a token may be signed."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is configured: for HS256 `material` is the secret, otherwise a PEM, public or private.

    Only a secret or a private key can sign.
    """

    kid: str
    algorithm: Algorithm
    material: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """For whom a connection or a call speaks, and until when (milliseconds since 1970)."""

    tenant_id: TenantId
    role: Role
    user_id: str
    expires_at_ms: int


NumericDate: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799, description="s since 1970, to 9999")]


class _Claims(msgspec.Struct):
    sub: str
    tenant: str
    role: Role
    exp: NumericDate
    iat: NumericDate | UnsetType = UNSET
    nbf: NumericDate | UnsetType = UNSET
    aud: str | list[str] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class _Loaded:
    algorithm: Algorithm
    public: PublicKey
    private: PrivateKey | None


class KeyRing:
    """The keys that tokens are verified with. Raises `ConfigError` for a key that cannot be used."""

    def __init__(self, keys: Sequence[Key], audience: str | None = None) -> None:
        self._keys: dict[str, _Loaded] = {}
        for key in keys:
            if key.kid in self._keys:
                raise ConfigError(f"two token keys have the id {key.kid!r}")
            self._keys[key.kid] = _load(key)
        self._audience = audience
        self._jws = jwt.PyJWS(algorithms=list(Algorithm))
        self._claims = msgspec.json.Decoder(_Claims)

    def verify(self, token: str, now_ms: int) -> Principal:
        """Whom `token` speaks for. Raises `RequestError` UNAUTHENTICATED."""
        try:
            key = self._key_of(self._jws.get_unverified_header(token).get("kid"))
            payload = self._jws.decode(token, key.public, [key.algorithm])
            claims = self._claims.decode(payload)
        # ValueError and TypeError: whatever else a forged token may provoke in the parsers is a bad token as well.
        except msgspec.ValidationError as error:
            _refuse("The token is not valid.", f"claims: {_QUOTED.sub('...', str(error))}")
        except (jwt.PyJWTError, msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:
            _refuse("The token is not valid.", f"form or signature: {type(error).__name__}")
        expires_at_ms = claims.exp * 1000
        if expires_at_ms <= now_ms:
            _refuse("The token has expired.", "claim exp")
        soon_s = now_ms / 1000 + LEEWAY_S
        if (claims.nbf is not UNSET and claims.nbf > soon_s) or (claims.iat is not UNSET and claims.iat > soon_s):
            _refuse("The token is not valid yet.", "claim nbf or iat")
        if not (is_id(claims.sub) and is_id(claims.tenant)):
            _refuse("The token is not valid.", "claims: sub or tenant is not an id")
        if claims.aud is not UNSET:
            named = [claims.aud] if isinstance(claims.aud, str) else claims.aud
            if self._audience not in named:
                _refuse("The token is for somebody else.", "claim aud")
        return Principal(TenantId(claims.tenant), claims.role, claims.sub, int(expires_at_ms))

    def sign(
        self, *, tenant: str, role: Role, user: str, now_ms: int, lifetime_s: int = 86_400, kid: str | None = None
    ) -> str:
        """A token for development, signed with the key `kid` (default: the first that can sign).

        Raises `ConfigError` if there is no such key, ValueError for an id that tokens may not carry.
        """
        if not (is_id(tenant) and is_id(user)):
            raise ValueError(f"tenant and user are {ID_FORM}")
        if kid is not None and kid not in self._keys:
            raise ConfigError(f"there is no token key {kid!r}")
        for name, key in self._keys.items():
            if key.private is not None and kid in (None, name):
                claims = {
                    "sub": user,
                    "tenant": tenant,
                    "role": role,
                    "iat": now_ms // 1000,
                    "exp": now_ms // 1000 + lifetime_s,
                    **({} if self._audience is None else {"aud": self._audience}),
                }
                return self._jws.encode(msgspec.json.encode(claims), key.private, key.algorithm, {"kid": name})
        which = "no token key can" if kid is None else f"the token key {kid!r} cannot"
        raise ConfigError(f"{which} sign: that takes a secret or a private key")

    def _key_of(self, kid: Any) -> _Loaded:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            _refuse("The token is not valid.", "kid: missing" if kid is None else "kid: no such key")
        return key


_QUOTED = re.compile(r"'.*'", re.DOTALL)


def _refuse(message: str, reason: str) -> NoReturn:
    error = RequestError(ErrorCode.UNAUTHENTICATED, message)
    error.reason = reason
    raise error from None


def _load(key: Key) -> _Loaded:
    """The key in the form that it is used in. A message never contains the material."""
    if key.algorithm is Algorithm.HS256:
        secret = key.material.encode()
        if len(secret) < MIN_SECRET_BYTES:
            raise ConfigError(f"token key {key.kid!r}: an HS256 secret has at least {MIN_SECRET_BYTES} bytes")
        return _Loaded(key.algorithm, secret, secret)
    pem = key.material.encode()
    private = None
    try:
        if "PRIVATE KEY-----" in key.material:
            private = load_pem_private_key(pem, password=None)
            public = private.public_key()
        else:
            public = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"token key {key.kid!r}: not a PEM with an unencrypted key") from None
    if key.algorithm is Algorithm.RS256 and isinstance(public, RSAPublicKey):
        if public.key_size < MIN_RSA_BITS:
            raise ConfigError(f"token key {key.kid!r}: an RSA key has at least {MIN_RSA_BITS} bits")
        assert private is None or isinstance(private, RSAPrivateKey)
        return _Loaded(key.algorithm, public, private)
    if (
        key.algorithm is Algorithm.ES256
        and isinstance(public, EllipticCurvePublicKey)
        and isinstance(public.curve, SECP256R1)
    ):
        assert private is None or isinstance(private, EllipticCurvePrivateKey)
        return _Loaded(key.algorithm, public, private)
    raise ConfigError(f"token key {key.kid!r}: {key.algorithm} takes {_TAKES[key.algorithm]}")


_TAKES = {Algorithm.RS256: "an RSA key", Algorithm.ES256: "a key on the curve P-256"}
