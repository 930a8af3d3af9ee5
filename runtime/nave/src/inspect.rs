//! Looking at the machine, at files and at certificates, for `nave status` and `nave doctor`.

use std::net::IpAddr;
use std::path::Path;

use nave_model::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const DAY_SECONDS: i64 = 24 * 3600;

/// What a server certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// Its subject alternative names; addresses as text.
    pub(crate) names: Vec<String>,
    /// Who issued it.
    pub(crate) issuer: String,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// Seconds since 1970.
    pub(crate) not_after: i64,
    /// Whether subject and issuer are the same.
    pub(crate) is_self_issued: bool,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub(crate) fingerprint: String,
}

impl CertificateFacts {
    /// Reads the first certificate of a PEM chain.
    pub(crate) fn of_pem(chain: &[u8]) -> Option<Self> {
        let first = CertificateDer::pem_slice_iter(chain).next()?.ok()?;
        let (_, certificate) = X509Certificate::from_der(&first).ok()?;
        let mut names = Vec::new();
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            names.extend(extension.value.general_names.iter().filter_map(name_text));
        }
        Some(Self {
            names,
            issuer: certificate.issuer().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            is_self_issued: certificate.issuer().as_raw() == certificate.subject().as_raw(),
            fingerprint: fingerprint(&first),
        })
    }

    /// Whole days until it expires; negative when it has.
    pub(crate) fn days_left(&self, now: Timestamp) -> i64 {
        self.not_after.saturating_sub(seconds(now)).div_euclid(DAY_SECONDS)
    }

    /// Whether its time has come and is not over.
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&seconds(now))
    }

    /// Whether a client that dials `name` accepts it: the name itself, or a wildcard for its first label (RFC 6125).
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|known| {
            known.eq_ignore_ascii_case(name)
                || known
                    .strip_prefix("*.")
                    .zip(name.split_once('.'))
                    .is_some_and(|(parent, (label, rest))| !label.is_empty() && parent.eq_ignore_ascii_case(rest))
        })
    }

    /// The facts for programs.
    pub(crate) fn json(&self, now: Timestamp) -> Value {
        let iso = |time: i64| Timestamp::from_unix_seconds(u64::try_from(time).unwrap_or_default()).iso();
        json!({
            "names": self.names,
            "issuer": self.issuer,
            "sha256": self.fingerprint,
            "notBefore": iso(self.not_before),
            "notAfter": iso(self.not_after),
            "daysLeft": self.days_left(now),
        })
    }
}

fn fingerprint(der: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, der);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(time: Timestamp) -> i64 {
    i64::try_from(time.unix_seconds()).unwrap_or(i64::MAX)
}

/// A name of a certificate as text; `None` for kinds that no server is dialled by.
pub(crate) fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::from(bytes).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::from(bytes).to_string())).ok()
        }
        _ => None,
    }
}

/// Bytes that an ordinary user may still write into the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Memory that this process really has; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Descriptors that this process has open; `None` where the system does not say.
pub(crate) fn open_descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// How many descriptors this process may open; `None` where the system does not say, or sets no limit.
pub(crate) fn descriptor_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["hub.example.org", "*.field.example.org", "127.0.0.1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let facts = CertificateFacts::of_pem(made.pem().as_bytes()).unwrap();
        for good in ["hub.example.org", "HUB.example.org", "a.field.example.org", "127.0.0.1"] {
            assert!(facts.covers(good), "{good}");
        }
        for bad in ["example.org", "field.example.org", "a.b.field.example.org", ".field.example.org", "127.0.0.2"] {
            assert!(!facts.covers(bad), "{bad}");
        }
        assert!(facts.is_self_issued);
        let at = |seconds: i64| Timestamp::from_unix_seconds(u64::try_from(seconds).unwrap());
        assert!(facts.is_valid_at(at(facts.not_after)) && !facts.is_valid_at(at(facts.not_after + 1)));
        assert_eq!(facts.days_left(at(facts.not_after - 10 * DAY_SECONDS - 1)), 10);
        assert_eq!(facts.days_left(at(facts.not_after + 1)), -1);
        assert_eq!(CertificateFacts::of_pem(b"no certificate"), None);
    }

    #[test]
    fn the_machine_is_seen() {
        assert!(free_bytes(Path::new("/")).is_some_and(|free| free > 0));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(open_descriptors().is_some_and(|count| count >= 3));
        assert!(free_bytes(Path::new("/does/not/exist")).is_none());
    }
}
