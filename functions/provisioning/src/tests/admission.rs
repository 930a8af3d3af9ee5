//! Who may come in.

use crate::fixtures::*;
use crate::*;

fn refused(decision: Decision) -> (u32, String) {
    match decision {
        Decision::Refused(error) => (error.code, error.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn without_an_enrollment_the_answer_depends_on_the_attestation() {
    for (kind, code, message) in [
        (AttestationKind::SymmetricKey, 401_002, "Unauthorized"),
        (AttestationKind::X509, 401_002, "Invalid certificate."),
        (AttestationKind::Tpm, 404_201, "There is no enrollment for this registration id."),
    ] {
        for verdict in [Verdict::Rejected("nothing to verify against".into()), Verdict::Verified] {
            let mut request = request(|_, _| ());
            request.enrollment = None;
            request.evidence = Evidence { kind, verdict };
            assert_eq!(refused(done(&request)), (code, message.to_owned()));
        }
    }
}

#[test]
fn a_rejected_proof_is_unauthorized_and_the_reason_is_for_the_log() {
    let request = request(|request, _| request.evidence.verdict = Verdict::Rejected("signature differs".into()));
    let Decision::Refused(error) = done(&request) else { panic!() };
    assert_eq!((error.code, error.message.as_str()), (401_002, "Unauthorized"));
    assert!(error.log.contains("signature differs"), "{}", error.log);
}

#[test]
fn another_attestation_than_the_enrollments_is_unauthorized() {
    let kinds = [AttestationKind::SymmetricKey, AttestationKind::X509, AttestationKind::Tpm];
    for wanted in kinds {
        for presented in kinds {
            let request = request(|request, enrollment| {
                enrollment.attestation = wanted;
                request.evidence.kind = presented;
            });
            if wanted == presented {
                allocation(&request);
            } else {
                assert_eq!(refused(done(&request)).0, 401_002);
            }
        }
    }
}

#[test]
fn an_individual_enrollment_is_for_its_own_device() {
    let with_id = |id: &str| request(|_, enrollment| enrollment.id = id.into());
    assert_eq!(refused(done(&with_id("dev-2"))).0, 401_002);
    allocation(&with_id("DEV-1"));
}

#[test]
fn a_disabled_enrollment_ends_the_registration_of_new_and_old_devices() {
    for current in [None, Some(current())] {
        for kind in [EnrollmentKind::Individual, EnrollmentKind::Group] {
            let request = request(|request, enrollment| {
                enrollment.enabled = false;
                enrollment.kind = kind;
                request.current = current.clone();
            });
            assert_eq!(done(&request), Decision::Disabled);
        }
    }
}

#[test]
fn who_cannot_prove_anything_does_not_learn_that_the_enrollment_is_disabled() {
    let request = request(|request, enrollment| {
        enrollment.enabled = false;
        request.evidence.verdict = Verdict::Rejected("no".into());
    });
    assert_eq!(refused(done(&request)).0, 401_002);
}
