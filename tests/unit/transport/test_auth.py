import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.ids import TenantId
from haulcast.errors import ConfigError, ErrorCode, RequestError
from haulcast.ports import Role
from haulcast.transport.auth import Algorithm, Key, KeyRing, Principal

NOW_MS = 1_790_000_000_000
NOW_S = NOW_MS // 1000
SECRET = "a secret of at least thirty-two bytes"
CLAIMS: dict[str, Any] = {"sub": "t7", "tenant": "acme", "role": "transporter", "exp": NOW_S + 60}


def pems(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    """The private and the public PEM."""
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )


RSA_PRIVATE, RSA_PUBLIC = pems(rsa.generate_private_key(65_537, 2048))
EC_PRIVATE, EC_PUBLIC = pems(ec.generate_private_key(ec.SECP256R1()))
HS = Key("hs", Algorithm.HS256, SECRET)
RS = Key("rs", Algorithm.RS256, RSA_PUBLIC)
ES = Key("es", Algorithm.ES256, EC_PUBLIC)
RING = KeyRing([HS, RS, ES])


def token(
    claims: dict[str, Any] | None = None, key: str = SECRET, algorithm: str = "HS256", kid: str | None = "hs"
) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(CLAIMS if claims is None else claims, key, algorithm, headers=headers)


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "replace")).rstrip(b"=").decode()


def part(value: Any) -> str:
    return encode(json.dumps(value))


def by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """A token signed with HMAC whatever the header says: PyJWT itself refuses to make some of them."""
    signed = f"{part(header)}.{part(claims)}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def refusal(bad: str, ring: KeyRing = RING, now_ms: int = NOW_MS) -> str:
    with pytest.raises(RequestError) as caught:
        ring.verify(bad, now_ms)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED
    assert caught.value.data == {}
    assert caught.value.__suppress_context__  # what the token had in it stays out of the log
    return caught.value.message


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (token(kid="gone"), "kid: no such key"),
        (token(kid=None), "kid: missing"),
        (token({**CLAIMS, "role": "boss"}), "claims: Invalid enum value ... - at `$.role`"),
        (token({**CLAIMS, "sub": "auth0|1"}), "claims: sub or tenant is not an id"),
        (token(key=SECRET * 2), "form or signature: InvalidSignatureError"),
        (token({**CLAIMS, "aud": "billing"}), "claim aud"),
    ],
)
def test_the_log_is_told_which_check_a_token_failed_and_nothing_that_it_contained(bad: str, reason: str) -> None:
    with pytest.raises(RequestError) as caught:
        RING.verify(bad, NOW_MS)
    assert caught.value.reason == reason
    assert reason not in caught.value.message


class TestAGoodToken:
    @pytest.mark.parametrize(
        ("key", "algorithm", "kid"),
        [(SECRET, "HS256", "hs"), (RSA_PRIVATE, "RS256", "rs"), (EC_PRIVATE, "ES256", "es")],
    )
    def test_says_who_is_there_and_until_when(self, key: str, algorithm: str, kid: str) -> None:
        assert RING.verify(token(key=key, algorithm=algorithm, kid=kid), NOW_MS) == Principal(
            TenantId("acme"), Role.TRANSPORTER, "t7", NOW_MS + 60_000
        )

    def test_may_lack_a_kid_while_there_is_one_key(self) -> None:
        assert KeyRing([HS]).verify(token(kid=None), NOW_MS).user_id == "t7"

    def test_may_come_from_a_clock_a_little_ahead(self) -> None:
        RING.verify(token({**CLAIMS, "iat": NOW_S + 10, "nbf": NOW_S + 10}), NOW_MS)

    def test_stays_good_while_a_second_key_is_introduced_and_the_first_retired(self) -> None:
        old, new = token(), token(key=SECRET * 2, kid="new")
        both = KeyRing([HS, Key("new", Algorithm.HS256, SECRET * 2)])
        assert both.verify(old, NOW_MS) == both.verify(new, NOW_MS)
        refusal(old, KeyRing([Key("new", Algorithm.HS256, SECRET * 2)]))


class TestABadToken:
    def test_expired(self) -> None:
        good = token()
        assert RING.verify(good, NOW_MS + 59_999)
        assert refusal(good, now_ms=NOW_MS + 60_000) == "The token has expired."

    @pytest.mark.parametrize("claim", ["iat", "nbf"])
    def test_not_valid_yet(self, claim: str) -> None:
        assert refusal(token({**CLAIMS, claim: NOW_S + 11})) == "The token is not valid yet."

    @pytest.mark.parametrize("claim", ["sub", "tenant", "role", "exp"])
    def test_missing_claim(self, claim: str) -> None:
        refusal(token({name: value for name, value in CLAIMS.items() if name != claim}))

    @pytest.mark.parametrize(
        "changed",
        [
            {"sub": ""},
            {"sub": "a b"},
            {"sub": "../acme"},
            {"sub": "t7\n"},
            {"sub": 7},
            {"tenant": None},
            {"tenant": "x" * 65},
            {"role": "root"},
            {"role": ["admin"]},
            {"exp": "tomorrow"},
            {"exp": None},
            {"exp": True},
            {"exp": 1e308},
            {"exp": -1},
            {"exp": 10**400},
            {"nbf": "now"},
        ],
    )
    def test_claim_of_the_wrong_kind(self, changed: dict[str, Any]) -> None:
        refusal(by_hand({"alg": "HS256", "kid": "hs"}, {**CLAIMS, **changed}, SECRET.encode()))

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
    def test_expiry_that_is_no_number(self, number: str) -> None:
        claims = json.dumps(CLAIMS).replace(str(CLAIMS["exp"]), number).encode()
        refusal(jwt.PyJWS().encode(claims, SECRET, "HS256", {"kid": "hs"}))

    def test_wrong_key(self) -> None:
        refusal(token(key=SECRET + "!"))

    def test_key_of_another_kid(self) -> None:
        refusal(token(key=EC_PRIVATE, algorithm="ES256", kid="hs"))

    def test_changed_after_it_was_signed(self) -> None:
        header, _, signature = token().split(".")
        refusal(f"{header}.{part({**CLAIMS, 'role': 'admin'})}.{signature}")

    @pytest.mark.parametrize("kid", ["other", "", "hs ", 7, None, ["hs"], {"hs": 1}])
    def test_unknown_or_missing_kid(self, kid: Any) -> None:
        header = {"alg": "HS256"} | ({} if kid is None else {"kid": kid})
        refusal(by_hand(header, CLAIMS, SECRET.encode()))

    @pytest.mark.parametrize("kid", ["hs", "rs", "es"])
    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None])
    def test_unsigned(self, kid: str, algorithm: str | None) -> None:
        unsigned = f"{part({'alg': algorithm, 'kid': kid})}.{part(CLAIMS)}."
        refusal(unsigned)
        refusal(unsigned, KeyRing([RS]))

    @pytest.mark.parametrize(("kid", "public"), [("rs", RSA_PUBLIC), ("es", EC_PUBLIC)])
    def test_signed_with_the_public_key_as_if_it_were_a_secret(self, kid: str, public: str) -> None:
        """The classic confusion of algorithms: everybody has the public key."""
        for secret in (public.encode(), public.strip().encode()):
            refusal(by_hand({"alg": "HS256", "kid": kid}, CLAIMS, secret))
            refusal(by_hand({"alg": "HS256"}, CLAIMS, secret), KeyRing([RS if kid == "rs" else ES]))

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    def test_another_algorithm_with_the_right_secret(self, algorithm: str) -> None:
        refusal(jwt.encode(CLAIMS, SECRET * 2, algorithm, headers={"kid": "hs"}), KeyRing([_wide()]))

    def test_meant_for_somebody_else(self) -> None:
        for_other = token({**CLAIMS, "aud": "billing"})
        assert refusal(for_other) == "The token is for somebody else."
        assert refusal(for_other, KeyRing([HS], audience="dispatch")) == "The token is for somebody else."
        KeyRing([HS], audience="dispatch").verify(token({**CLAIMS, "aud": ["billing", "dispatch"]}), NOW_MS)

    def test_with_a_critical_extension_that_nobody_here_knows(self) -> None:
        refusal(by_hand({"alg": "HS256", "kid": "hs", "crit": ["x"], "x": 1}, CLAIMS, SECRET.encode()))

    @pytest.mark.parametrize("bad", ["", ".", "..", "a.b.c", "é.é.é", "\ud800", "x" * 10_000, "[" * 9000])
    def test_no_token_at_all(self, bad: str) -> None:
        refusal(bad)

    @given(st.text(), st.text(), st.text())
    def test_whatever_a_client_makes_up(self, header: str, claims: str, signature: str) -> None:
        refusal(".".join(encode(made_up) for made_up in (header, claims, signature)))

    @given(
        st.recursive(
            st.none() | st.text() | st.integers() | st.floats(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)
        )
    )
    def test_whatever_json_is_signed_instead_of_claims(self, payload: Any) -> None:
        signed = jwt.PyJWS().encode(json.dumps(payload).encode(), SECRET, "HS256", {"kid": "hs"})
        refusal(signed)


def _wide() -> Key:
    return Key("hs", Algorithm.HS256, SECRET * 2)


class TestKeys:
    @pytest.mark.parametrize(
        "keys",
        [
            [HS, HS],
            [Key("k", Algorithm.HS256, "short")],
            [Key("k", Algorithm.RS256, "no pem")],
            [Key("k", Algorithm.RS256, EC_PUBLIC)],
            [Key("k", Algorithm.ES256, RSA_PUBLIC)],
            [Key("k", Algorithm.ES256, pems(ec.generate_private_key(ec.SECP384R1()))[1])],
            [Key("k", Algorithm.RS256, pems(rsa.generate_private_key(65_537, 1024))[0])],
            [Key("k", Algorithm.RS256, RSA_PRIVATE[:200])],
        ],
    )
    def test_one_that_cannot_be_used_is_refused_at_the_start_without_saying_it(self, keys: list[Key]) -> None:
        with pytest.raises(ConfigError) as caught:
            KeyRing(keys)
        assert keys[-1].material[:20] not in str(caught.value)

    def test_material_is_not_in_the_repr(self) -> None:
        assert SECRET not in repr(HS)

    def test_without_any_every_token_is_refused(self) -> None:
        refusal(token(kid=None), KeyRing([]))


class TestSigning:
    @pytest.mark.parametrize(
        "key",
        [HS, Key("rs", Algorithm.RS256, RSA_PRIVATE), Key("es", Algorithm.ES256, EC_PRIVATE)],
    )
    def test_what_is_signed_verifies(self, key: Key) -> None:
        ring = KeyRing([key], audience="dispatch")
        signed = ring.sign(tenant="acme", role=Role.OPERATOR, user="op1", now_ms=NOW_MS, lifetime_s=60)
        assert ring.verify(signed, NOW_MS) == Principal(TenantId("acme"), Role.OPERATOR, "op1", NOW_MS + 60_000)

    def test_takes_the_first_key_that_can_sign_or_the_one_named(self) -> None:
        ring = KeyRing([RS, HS, Key("second", Algorithm.HS256, SECRET * 2)])

        def sign(kid: str | None) -> str:
            return ring.sign(tenant="acme", role=Role.ADMIN, user="a", now_ms=NOW_MS, kid=kid)

        assert jwt.get_unverified_header(sign(None))["kid"] == "hs"
        assert jwt.get_unverified_header(sign("second"))["kid"] == "second"
        with pytest.raises(ConfigError):
            sign("rs")

    def test_a_public_key_alone_cannot(self) -> None:
        with pytest.raises(ConfigError):
            KeyRing([RS]).sign(tenant="acme", role=Role.ADMIN, user="a", now_ms=NOW_MS)

    def test_nobody_gets_a_token_that_would_be_refused(self) -> None:
        with pytest.raises(ValueError, match="tenant and user"):
            RING.sign(tenant="a b", role=Role.ADMIN, user="a", now_ms=NOW_MS)
