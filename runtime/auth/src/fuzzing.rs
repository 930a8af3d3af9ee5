//! Entry points for a fuzzer. Each takes any bytes and panics if an invariant is broken.

#![expect(clippy::unwrap_used, reason = "a panic is how a fuzz target reports")]

use std::time::Duration;

use nave_model::Timestamp;

use crate::{
    CaCertificate, CertificateInfo, ConnectionString, Resource, SasToken, SharedKey, Thumbprint,
    parse_certificate_text, percent_decode, percent_encode, subject_public_key_info,
};

/// A token that is read can be judged, and no key that did not make it verifies it.
pub fn fuzz_sas(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(token) = SasToken::parse(text) else { return };
    let key = SharedKey::from_bytes(&[0x5a; 32]).unwrap();
    assert!(token.verify(&[&key]).is_err(), "nobody made a token with this key");
    let _ = token.check_expiry(Timestamp::from_unix_seconds(1_800_000_000), Duration::from_secs(300));
    let _ = (token.key_name(), token.may_be_device_key("d"), token.may_be_registration_key());
    let _ = format!("{token:?}");
}

/// A connection string that is read is written as one that is read as the same.
pub fn fuzz_connection_string(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(parsed) = ConnectionString::parse_service(text) {
        let written = parsed.expose();
        assert_eq!(ConnectionString::parse_service(&written).unwrap().expose(), written);
    }
    if let Ok(parsed) = ConnectionString::parse_device(text) {
        let written = parsed.expose();
        assert_eq!(ConnectionString::parse_device(&written).unwrap().expose(), written);
    }
}

/// Certificates as bytes and as text, and thumbprints: nothing panics, and what was read once is read again.
pub fn fuzz_x509(data: &[u8]) {
    if let Ok(info) = CertificateInfo::parse(data) {
        let _ = format!("{info:?}");
    }
    let _ = CaCertificate::parse(data).is_ok();
    let _ = subject_public_key_info(data).is_ok();
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(der) = parse_certificate_text(text) {
        let _ = CertificateInfo::parse(&der).is_ok();
    }
    let _ = (Thumbprint::parse(text).is_ok(), Thumbprint::parse_plain(text).is_ok());
}

/// Percent encoding goes both ways, and any text can be asked whether it names a resource.
pub fn fuzz_resource(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert_eq!(percent_decode(&percent_encode(text)).as_deref(), Some(text));
    let _ = percent_decode(text);
    let resource = Resource::parse(text);
    let _ = resource.host().map(str::len);
    let _ = resource.covers(|host| host == "h.x", &["devices", "d"]);
}

#[cfg(test)]
mod tests {
    use nave_tests::fuzz::exercise;

    #[test]
    fn corpora_and_mutations() {
        exercise("sas", super::fuzz_sas);
        exercise("connection_string", super::fuzz_connection_string);
        exercise("x509", super::fuzz_x509);
        exercise("resource", super::fuzz_resource);
    }
}
