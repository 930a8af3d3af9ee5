"""Certificates, made when they are needed."""

import base64
import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.secrets import remember

_FOLDER = tempfile.TemporaryDirectory(prefix="nave-e2e-pki-")
"""Removed with everything in it when the run ends."""

DAY = datetime.timedelta(days=1)


@dataclass
class Certificate:
    """A certificate with its key and, below the root, with its issuer."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    issuer: "Certificate | None" = None

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def common_name(self) -> str:
        return self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value

    def thumbprint(self, algorithm: str = "sha1") -> str:
        return self.certificate.fingerprint({"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}[algorithm]).hex().upper()

    def chain_pem(self) -> str:
        """This and its issuers without the root: what a device presents."""
        text, link = self.pem, self.issuer
        while link is not None and link.issuer is not None:
            text += link.pem
            link = link.issuer
        return text

    def files(self, chain: bool = True) -> tuple[str, str]:
        """Paths of a certificate file and a key file, as the SDKs want them."""
        return _write(self.chain_pem() if chain else self.pem, self.key_pem)

    def stolen_files(self) -> tuple[str, str]:
        """This certificate with a private key that is not its own.

        TLS libraries refuse a pair whose public halves differ. So the key file names this certificate's public point beside
        a foreign scalar, which a library believes: the signatures are what is wrong.
        """
        scalar = _ec_key().private_numbers().private_value.to_bytes(32, "big")
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        # ECPrivateKey (RFC 5915) on P-256, whose object identifier is 1.2.840.10045.3.1.7.
        oid = bytes.fromhex("06082a8648ce3d030107")
        body = (b"\x02\x01\x01" + b"\x04\x20" + scalar + b"\xa0" + bytes([len(oid)]) + oid
                + b"\xa1" + bytes([len(point) + 3]) + b"\x03" + bytes([len(point) + 1]) + b"\x00" + point)
        der = b"\x30" + bytes([len(body)]) + body
        text = base64.encodebytes(der).decode()
        return _write(self.chain_pem(), f"-----BEGIN EC PRIVATE KEY-----\n{text}-----END EC PRIVATE KEY-----\n")


def _write(certificate: str, key: str) -> tuple[str, str]:
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_text(certificate)
    key_file.write_text(remember(key))
    return str(certificate_file), str(key_file)


def _make(common_name: str, issuer: Certificate | None, ca: bool, days: tuple[int, int], key,
          organisation: str | None = None) -> Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    name = x509.Name(names)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if ca:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False)
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    else:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    if issuer:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(authority, critical=False)
    return Certificate(builder.sign((issuer or Certificate(None, key)).key, hashes.SHA256()), key, issuer)


def _ec_key():
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(common_name: str, days: tuple[int, int] = (-1, 30), rsa_key: bool = False,
                organisation: str | None = None) -> Certificate:
    key = rsa.generate_private_key(65537, 2048) if rsa_key else _ec_key()
    return _make(common_name, None, False, days, key, organisation)


def root(common_name: str = "Nave test root") -> Certificate:
    return _make(common_name, None, True, (-1, 30), _ec_key())


def intermediate(issuer: Certificate, common_name: str = "Nave test intermediate") -> Certificate:
    return _make(common_name, issuer, True, (-1, 30), _ec_key())


def leaf(issuer: Certificate, common_name: str, days: tuple[int, int] = (-1, 30)) -> Certificate:
    return _make(common_name, issuer, False, days, _ec_key())
