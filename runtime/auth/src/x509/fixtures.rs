//! Certificates for tests: small authorities made with rcgen, and a few made with OpenSSL because rcgen makes neither
//! RSA keys (with ring) nor version 1 certificates. The latter are in `fixtures`, valid from 2026-11-21 for 99 years:
//!
//! * `rsa-root.pem`: `openssl req -x509 -newkey rsa:2048 …`, and under it
//! * `rsa-leaf-v3.pem`, `rsa-leaf-v1.pem`, `rsa-leaf-v1-sha1.pem`: `openssl x509 -req …` with and without
//!   `-extfile`, the last with `-sha1`; common name `dev-1`;
//! * `rsa-root-expired.pem`: the same name and key, valid for one day;
//! * `rsa-root-v1.pem` and `rsa-leaf-v3-under-v1.pem`: a self-signed version 1 root and a leaf under it.

use nave_model::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use super::{CaCertificate, ClientCertificates, TrustAnchors, parse_certificate_text};

/// 2027-06-01, within the validity of everything that is made here.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_seconds(1_811_808_000);

/// An authority with its key.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, |_| ())
    }

    pub(crate) fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = (ca_params(name, change), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    /// Another certificate for the same name and key.
    pub(crate) fn renewed(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = self.params.clone();
        change(&mut params);
        let key = KeyPair::try_from(self.key.serialized_der()).unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { params, key, der }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |_| ())
    }

    pub(crate) fn intermediate_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (params, key) = (ca_params(name, change), KeyPair::generate().unwrap());
        let der = params.signed_by(&key, &self.issuer()).unwrap().der().clone();
        Self { params, key, der }
    }

    pub(crate) fn leaf(&self, common_name: &str) -> CertificateDer<'static> {
        self.leaf_with(common_name, |_| ())
    }

    pub(crate) fn leaf_with(
        &self,
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        self.leaf_for(&KeyPair::generate().unwrap(), common_name, change)
    }

    pub(crate) fn leaf_for(
        &self,
        key: &KeyPair,
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = named(common_name);
        change(&mut params);
        params.signed_by(key, &self.issuer()).unwrap().der().clone()
    }

    pub(crate) fn ca(&self) -> CaCertificate {
        CaCertificate::parse(&self.der).unwrap()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        // An issuer that the test forbids to sign has to sign nevertheless.
        let mut params = self.params.clone();
        params.key_usages.clear();
        Issuer::new(params, &self.key)
    }
}

/// A certificate that signed itself.
pub(crate) fn self_signed(common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = named(common_name);
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

pub(crate) fn presented(chain: &[&CertificateDer<'static>]) -> ClientCertificates {
    ClientCertificates::new(chain.iter().map(|certificate| (*certificate).clone()).collect()).unwrap()
}

pub(crate) fn anchors(authorities: &[&Authority]) -> TrustAnchors {
    TrustAnchors::new(authorities.iter().map(|authority| authority.ca()))
}

pub(crate) fn fixture(name: &str) -> CertificateDer<'static> {
    let text = match name {
        "rsa-root" => include_str!("fixtures/rsa-root.pem"),
        "rsa-root-expired" => include_str!("fixtures/rsa-root-expired.pem"),
        "rsa-leaf-v3" => include_str!("fixtures/rsa-leaf-v3.pem"),
        "rsa-leaf-v1" => include_str!("fixtures/rsa-leaf-v1.pem"),
        "rsa-leaf-v1-sha1" => include_str!("fixtures/rsa-leaf-v1-sha1.pem"),
        "rsa-root-v1" => include_str!("fixtures/rsa-root-v1.pem"),
        "rsa-leaf-v3-under-v1" => include_str!("fixtures/rsa-leaf-v3-under-v1.pem"),
        other => panic!("no fixture {other}"),
    };
    parse_certificate_text(text).unwrap()
}

pub(crate) fn years(params: &mut CertificateParams, from: i32, to: i32) {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    years(&mut params, 2020, 2050);
    params
}

fn ca_params(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    params
}
