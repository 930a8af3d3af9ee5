//! The arithmetic under the keys and thumbprints: digests, HMAC-SHA256, the signatures that count.
//!
//! Natively it is `ring`'s, as everywhere in the program. `ring` has C and assembly in it, which a build for WebAssembly
//! would need another compiler for; there it is that of RustCrypto, which is pure Rust and compares tags in constant time
//! as well (that both agree is shown by the SDKs' tokens in the tests with `tests/spin-host`). Signatures of certificates
//! are not verified there: the TLS of a WebAssembly host ends before the component, so no certificate reaches it, and a
//! chain that came another way would end in an error of its own.

#[cfg(not(target_arch = "wasm32"))]
pub use native::sha256;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{ALGORITHMS, hmac_sha256, sha1, verify_hmac_sha256};
#[cfg(target_arch = "wasm32")]
pub use portable::sha256;
#[cfg(target_arch = "wasm32")]
pub(crate) use portable::{ALGORITHMS, hmac_sha256, sha1, verify_hmac_sha256};

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use ring::{digest, hmac};
    use rustls_pki_types::SignatureVerificationAlgorithm;

    pub(crate) static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = webpki::ALL_VERIFICATION_ALGS;

    pub(crate) fn sha1(bytes: &[u8]) -> [u8; 20] {
        let mut result = [0; 20];
        result.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
        result
    }

    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> [u8; 32] {
        let mut result = [0; 32];
        result.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        result
    }

    pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
        tag
    }

    pub(crate) fn verify_hmac_sha256(key: &[u8], message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), message, tag).is_ok()
    }
}

#[cfg(target_arch = "wasm32")]
mod portable {
    use hmac::{Hmac, Mac as _};
    use rustls_pki_types::SignatureVerificationAlgorithm;
    use sha2::{Digest as _, Sha256};

    pub(crate) static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[];

    pub(crate) fn sha1(bytes: &[u8]) -> [u8; 20] {
        sha1::Sha1::digest(bytes).into()
    }

    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
        mac(key, message).map_or([0; 32], |mac| mac.finalize().into_bytes().into())
    }

    pub(crate) fn verify_hmac_sha256(key: &[u8], message: &[u8], tag: &[u8]) -> bool {
        mac(key, message).is_some_and(|mac| mac.verify_slice(tag).is_ok())
    }

    /// HMAC takes keys of every length: there always is one.
    fn mac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        mac.update(message);
        Some(mac)
    }
}
