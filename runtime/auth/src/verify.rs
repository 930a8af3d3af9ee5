//! From what a client presented to verified facts, or to a rejection.

use nave_model::{IdScope, Identity, RegistrationId, Timestamp};

use crate::facts::{PolicyFacts, RegistrationFacts, SasFacts, SasSigner, X509Facts, X509Trust};
use crate::key::KeyPair;
use crate::policy::AccessPolicy;
use crate::rejection::Rejection;
use crate::rights::Rights;
use crate::sas::{CLOCK_SKEW, KeyName, SasError, SasToken};
use crate::x509::{CertificateInfo, ClientCertificates, Thumbprint, TrustAnchors, verify_chain};

/// Verifies the token of a device or module for a connection (`operation` empty) or for an operation below its path
/// (`["messages", "events"]`).
///
/// `keys` are its own keys, if it has any; `policies` those of the hub. Either its own key signed for its path or
/// something below, or a policy with [`Rights::DEVICE_CONNECT`] signed for anything that covers it.
///
/// # Errors
/// [`Rejection`].
pub fn verify_device_token(
    token: &SasToken,
    is_host: impl Fn(&str) -> bool,
    identity: &Identity,
    operation: &[&str],
    keys: Option<&KeyPair>,
    policies: &[AccessPolicy<Rights>],
    now: Timestamp,
) -> Result<SasFacts, Rejection> {
    token.check_expiry(now, CLOCK_SKEW)?;
    let (device, module) = (identity.device_id(), identity.module_id());
    let expires = token.expiry();
    let policy = find_policy(token, policies);
    if token.may_be_device_key(device.as_str()) {
        let own = match keys {
            None => Err(Rejection::NoKeys),
            Some(_) if !token.resource().allows_device_operation(&is_host, device, module, operation) => {
                Err(Rejection::WrongResource)
            }
            Some(keys) => token.verify(&keys.both()).map_err(Rejection::Token),
        };
        match own {
            Ok(()) => return Ok(SasFacts { signer: SasSigner::OwnKey, expires }),
            // A policy may have the same name as the device.
            Err(rejection) if policy.is_none() => return Err(rejection),
            Err(_) => (),
        }
    }
    let policy = policy.ok_or(Rejection::UnknownPolicy)?;
    let mut path = vec!["devices", device.as_str()];
    if let Some(module) = module {
        path.extend(["modules", module.as_str()]);
    }
    path.extend(operation);
    if !token.resource().covers(is_host, &path) {
        return Err(Rejection::WrongResource);
    }
    token.verify(&policy.keys.both())?;
    if !policy.rights.contains(Rights::DEVICE_CONNECT) {
        return Err(Rejection::MissingRight(policy.name.clone()));
    }
    Ok(SasFacts { signer: SasSigner::Policy(policy.name.clone()), expires })
}

/// Verifies the token of a service client for the resource `path` (`["twins", "dev-1"]`) of a hub or provisioning
/// service.
///
/// # Errors
/// [`Rejection`]. Whether the policy's rights are enough is not checked here.
pub fn verify_policy_token<R: Copy>(
    token: &SasToken,
    is_host: impl Fn(&str) -> bool,
    path: &[&str],
    policies: &[AccessPolicy<R>],
    now: Timestamp,
) -> Result<PolicyFacts<R>, Rejection> {
    token.check_expiry(now, CLOCK_SKEW)?;
    let policy = find_policy(token, policies).ok_or(Rejection::UnknownPolicy)?;
    if !token.resource().covers(is_host, path) {
        return Err(Rejection::WrongResource);
    }
    token.verify(&policy.keys.both())?;
    Ok(PolicyFacts { policy: policy.name.clone(), rights: policy.rights, expires: token.expiry() })
}

/// Verifies the token of a device at the provisioning service against key pairs: the individual enrollment's, or those
/// derived from each group's ([`KeyPair::derive`], with the id as the device wrote it), lazily and in order.
///
/// # Errors
/// [`Rejection`].
pub fn verify_registration_token(
    token: &SasToken,
    scope: &IdScope,
    registration_id: &RegistrationId,
    candidates: impl IntoIterator<Item = KeyPair>,
    now: Timestamp,
) -> Result<RegistrationFacts, Rejection> {
    token.check_expiry(now, CLOCK_SKEW)?;
    if !token.may_be_registration_key() {
        return Err(Rejection::UnknownPolicy);
    }
    if !token.resource().names_registration(scope, registration_id) {
        return Err(Rejection::WrongResource);
    }
    let candidate = candidates.into_iter().position(|keys| token.verify(&keys.both()).is_ok());
    let candidate = candidate.ok_or(Rejection::Token(SasError::WrongSignature))?;
    Ok(RegistrationFacts { candidate, expires: token.expiry() })
}

/// Compares the presented leaf with the registered thumbprints (a device's, or those of an enrollment's certificates),
/// and checks its validity. The chain is not looked at.
///
/// # Errors
/// [`Rejection`].
pub fn match_certificate(
    certificates: &ClientCertificates,
    registered: &[Thumbprint],
    now: Timestamp,
) -> Result<X509Facts, Rejection> {
    let leaf = certificates.leaf();
    let candidate = registered.iter().position(|thumbprint| leaf.has_thumbprint(thumbprint));
    let candidate = candidate.ok_or(Rejection::ThumbprintMismatch { presented: leaf.sha256_thumbprint })?;
    check_validity(leaf, now)?;
    Ok(X509Facts { leaf: leaf.clone(), trust: X509Trust::Registered { candidate } })
}

/// Verifies the presented chain against `anchors`, and that the leaf's common name is the client's id, as `is_name`
/// says: a device id compares exactly, a registration id ignoring case.
///
/// # Errors
/// [`Rejection`].
pub fn verify_ca_signed(
    certificates: &ClientCertificates,
    is_name: impl Fn(&str) -> bool,
    anchors: &TrustAnchors,
    now: Timestamp,
) -> Result<X509Facts, Rejection> {
    let leaf = certificates.leaf();
    if !leaf.common_name.as_deref().is_some_and(is_name) {
        return Err(Rejection::CommonNameMismatch);
    }
    check_validity(leaf, now)?;
    let chain = verify_chain(certificates, anchors, now)?;
    let trust = X509Trust::Authority { anchor_index: chain.anchor_index, intermediates: chain.path.len() };
    Ok(X509Facts { leaf: leaf.clone(), trust })
}

fn check_validity(leaf: &CertificateInfo, now: Timestamp) -> Result<(), Rejection> {
    if now > leaf.not_after {
        return Err(Rejection::CertificateExpired(leaf.not_after_utc.clone()));
    }
    if now < leaf.not_before {
        return Err(Rejection::CertificateNotYetValid(leaf.not_before_utc.clone()));
    }
    Ok(())
}

fn find_policy<'a, R>(token: &SasToken, policies: &'a [AccessPolicy<R>]) -> Option<&'a AccessPolicy<R>> {
    match token.key_name() {
        KeyName::None => None,
        KeyName::Policy(name) => policies.iter().find(|policy| policy.name.as_str() == name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nave_model::{HostName, PolicyName};

    use super::*;
    use crate::key::SharedKey;
    use crate::policy::{default_dps_policies, default_hub_policies};
    use crate::rights::DpsRights;
    use crate::x509::ChainError;
    use crate::x509::fixtures::{Authority, NOW, anchors, presented, self_signed, years};

    fn keys(seed: u8) -> KeyPair {
        let mut next = seed;
        KeyPair::generate(32, |buffer| {
            buffer.fill(next);
            next += 1;
        })
    }

    fn policies() -> Vec<AccessPolicy<Rights>> {
        let mut next = 100;
        default_hub_policies(|buffer| {
            buffer.fill(next);
            next += 1;
        })
        .unwrap()
    }

    fn policy_key(name: &str) -> SharedKey {
        policies().into_iter().find(|policy| policy.name.as_str() == name).unwrap().keys.secondary
    }

    fn token(resource: &str, key: &SharedKey, key_name: Option<&str>) -> SasToken {
        let expiry = NOW.after(Duration::from_secs(3600));
        SasToken::parse(&SasToken::create(resource, key, expiry, key_name)).unwrap()
    }

    fn is_hub(host: &str) -> bool {
        HostName::parse("hub1.nave.test").unwrap() == *host
    }

    fn device(token: &SasToken, identity: &str, operation: &[&str]) -> Result<SasFacts, Rejection> {
        let identity = Identity::parse(identity).unwrap();
        verify_device_token(token, is_hub, &identity, operation, Some(&keys(1)), &policies(), NOW)
    }

    #[test]
    fn devices_and_modules_sign_with_their_own_keys() {
        let (primary, secondary) = (keys(1).primary, keys(1).secondary);
        for (resource, key, key_name, identity) in [
            ("hub1.nave.test/devices/d", &primary, None, "d"),
            ("HUB1.nave.test/devices/d", &secondary, Some(""), "d"),
            ("hub1.nave.test/devices/d", &primary, Some("d"), "d"),
            ("hub1.nave.test/devices/d/modules/m", &primary, None, "d/m"),
        ] {
            let facts = device(&token(resource, key, key_name), identity, &[]).unwrap();
            assert_eq!(facts.signer, SasSigner::OwnKey, "{resource}");
            assert_eq!(facts.expires, NOW.after(Duration::from_secs(3600)));
        }
        let good = token("hub1.nave.test/devices/d", &primary, None);
        assert!(device(&good, "d", &["messages", "events"]).is_ok());
        assert_eq!(device(&good, "D", &[]), Err(Rejection::WrongResource), "ids are case-sensitive");
        assert_eq!(device(&good, "d/m", &[]), Err(Rejection::WrongResource), "a module has its own resource");
        let wrong = token("hub1.nave.test/devices/d", &keys(7).primary, None);
        assert_eq!(device(&wrong, "d", &[]), Err(Rejection::Token(SasError::WrongSignature)));
        let elsewhere = token("hub2.nave.test/devices/d", &primary, None);
        assert_eq!(device(&elsewhere, "d", &[]), Err(Rejection::WrongResource));
        let too_wide = token("hub1.nave.test", &primary, None);
        assert_eq!(device(&too_wide, "d", &[]), Err(Rejection::WrongResource));
        let identity = Identity::parse("d").unwrap();
        assert_eq!(verify_device_token(&good, is_hub, &identity, &[], None, &policies(), NOW), Err(Rejection::NoKeys));
        let late = NOW.after(Duration::from_secs(3600) + CLOCK_SKEW + Duration::from_nanos(1));
        assert_eq!(
            verify_device_token(&good, is_hub, &identity, &[], Some(&keys(1)), &[], late),
            Err(Rejection::Token(SasError::Expired { expiry: good.expiry() }))
        );
    }

    #[test]
    fn policies_sign_for_devices_if_they_may() {
        for (resource, name, identity) in [
            ("hub1.nave.test", "device", "d"),
            ("hub1.nave.test/devices", "iothubowner", "d/m"),
            ("hub1.nave.test/devices/d", "device", "d"),
        ] {
            let facts = device(&token(resource, &policy_key(name), Some(name)), identity, &[]).unwrap();
            assert_eq!(facts.signer, SasSigner::Policy(PolicyName::parse(name).unwrap()));
        }
        let service = token("hub1.nave.test", &policy_key("service"), Some("service"));
        assert_eq!(device(&service, "d", &[]), Err(Rejection::MissingRight(PolicyName::parse("service").unwrap())));
        let other_device = token("hub1.nave.test/devices/e", &policy_key("device"), Some("device"));
        assert_eq!(device(&other_device, "d", &[]), Err(Rejection::WrongResource));
        let forged = token("hub1.nave.test", &policy_key("service"), Some("device"));
        assert_eq!(device(&forged, "d", &[]), Err(Rejection::Token(SasError::WrongSignature)));
        let unknown = token("hub1.nave.test", &policy_key("device"), Some("Device"));
        assert_eq!(device(&unknown, "d", &[]), Err(Rejection::UnknownPolicy));
        let nameless = token("hub1.nave.test/devices/d", &policy_key("device"), None);
        assert_eq!(device(&nameless, "d", &[]), Err(Rejection::Token(SasError::WrongSignature)));
    }

    #[test]
    fn a_device_may_have_the_name_of_a_policy() {
        let own = token("hub1.nave.test/devices/device", &keys(1).primary, Some("device"));
        assert_eq!(device(&own, "device", &[]).unwrap().signer, SasSigner::OwnKey);
        let policy = token("hub1.nave.test/devices/device", &policy_key("device"), Some("device"));
        assert!(matches!(device(&policy, "device", &[]).unwrap().signer, SasSigner::Policy(_)));
        let neither = token("hub1.nave.test/devices/device", &keys(9).primary, Some("device"));
        assert_eq!(device(&neither, "device", &[]), Err(Rejection::Token(SasError::WrongSignature)));
    }

    #[test]
    fn service_tokens_give_the_rights_of_their_policy() {
        let verify = |token: &SasToken, path: &[&str]| verify_policy_token(token, is_hub, path, &policies(), NOW);
        let facts = verify(&token("hub1.nave.test", &policy_key("service"), Some("service")), &["twins", "d"]).unwrap();
        assert_eq!((facts.policy.as_str(), facts.rights), ("service", Rights::SERVICE_CONNECT));
        let narrow = token("hub1.nave.test/devices", &policy_key("registryRead"), Some("registryRead"));
        assert_eq!(verify(&narrow, &["devices", "d"]).unwrap().rights, Rights::REGISTRY_READ);
        assert_eq!(verify(&narrow, &["twins", "d"]), Err(Rejection::WrongResource));
        let unnamed = token("hub1.nave.test", &policy_key("service"), None);
        assert_eq!(verify(&unnamed, &[]), Err(Rejection::UnknownPolicy));
        let forged = token("hub1.nave.test", &policy_key("service"), Some("iothubowner"));
        assert_eq!(verify(&forged, &[]), Err(Rejection::Token(SasError::WrongSignature)));
        let dps = default_dps_policies(|buffer| buffer.fill(5)).unwrap();
        let owner = token("hub1.nave.test", &dps[0].keys.primary, Some("provisioningserviceowner"));
        assert_eq!(
            verify_policy_token(&owner, is_hub, &["enrollments", "d"], &dps, NOW).unwrap().rights,
            DpsRights::ALL
        );
    }

    #[test]
    fn registrations_are_tried_against_every_group() {
        let (scope, id) = (IdScope::parse("0ne00001234").unwrap(), RegistrationId::parse("Dev-1").unwrap());
        let groups = [keys(20), keys(30), keys(40)];
        let derived = || groups.iter().map(|group| group.derive("Dev-1"));
        let verify = |token: &SasToken| verify_registration_token(token, &scope, &id, derived(), NOW);
        let resource = "0ne00001234/registrations/Dev-1";
        for key_name in [None, Some(""), Some("registration")] {
            let token = token(resource, &groups[1].derive("Dev-1").secondary, key_name);
            assert_eq!(verify(&token).map(|facts| facts.candidate), Ok(1), "{key_name:?}");
        }
        let key = groups[0].derive("Dev-1").primary;
        assert_eq!(verify(&token(resource, &key, Some("other"))), Err(Rejection::UnknownPolicy));
        assert_eq!(verify(&token("0ne00001234/registrations/dev-2", &key, None)), Err(Rejection::WrongResource));
        assert_eq!(verify(&token("0ne00009999/registrations/dev-1", &key, None)), Err(Rejection::WrongResource));
        let lower = token(resource, &groups[0].derive("dev-1").primary, None);
        assert_eq!(verify(&lower), Err(Rejection::Token(SasError::WrongSignature)), "the raw id counts");
    }

    #[test]
    fn registered_certificates_match_by_either_thumbprint() {
        let leaf = self_signed("dev-1", |_| ());
        let certificates = presented(&[&leaf]);
        let other = Thumbprint::sha256(b"other");
        for thumbprint in [Thumbprint::sha1(&leaf), Thumbprint::sha256(&leaf)] {
            let facts = match_certificate(&certificates, &[other, thumbprint], NOW).unwrap();
            assert_eq!(facts.trust, X509Trust::Registered { candidate: 1 });
            assert_eq!(facts.leaf.common_name.as_deref(), Some("dev-1"));
        }
        let mismatch = Err(Rejection::ThumbprintMismatch { presented: Thumbprint::sha256(&leaf) });
        assert_eq!(match_certificate(&certificates, &[other], NOW), mismatch);
        assert_eq!(match_certificate(&certificates, &[], NOW), mismatch);
        for (from, to) in [(2020, 2021), (2030, 2031)] {
            let leaf = self_signed("dev-1", |params| years(params, from, to));
            let result = match_certificate(&presented(&[&leaf]), &[Thumbprint::sha1(&leaf)], NOW);
            assert!(
                matches!(result, Err(Rejection::CertificateExpired(_) | Rejection::CertificateNotYetValid(_))),
                "{result:?}"
            );
        }
    }

    #[test]
    fn ca_signed_certificates_need_the_right_name_and_chain() {
        let root = Authority::root("root");
        let sub = root.intermediate("sub");
        let leaf = sub.leaf("dev-1");
        let certificates = presented(&[&leaf, &sub.der]);
        let set = anchors(&[&root]);
        let facts = verify_ca_signed(&certificates, |name| name == "dev-1", &set, NOW).unwrap();
        assert_eq!(facts.trust, X509Trust::Authority { anchor_index: 0, intermediates: 1 });
        let ignoring_case = |name: &str| name.eq_ignore_ascii_case("DEV-1");
        assert!(verify_ca_signed(&certificates, ignoring_case, &set, NOW).is_ok());
        let wrong_name = verify_ca_signed(&certificates, |name| name == "DEV-1", &set, NOW);
        assert_eq!(wrong_name, Err(Rejection::CommonNameMismatch));
        let no_chain = verify_ca_signed(&presented(&[&leaf]), |_| true, &set, NOW);
        assert_eq!(no_chain, Err(Rejection::Chain(ChainError::UnknownIssuer)));
        let expired = sub.leaf_with("dev-1", |params| years(params, 2020, 2021));
        let expired = verify_ca_signed(&presented(&[&expired, &sub.der]), |_| true, &set, NOW);
        assert_eq!(expired, Err(Rejection::CertificateExpired("2021-01-01T00:00:00.0000000Z".to_owned())));
    }
}
