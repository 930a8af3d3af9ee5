//! Who may come in.
//!
//! Source: protocol notes, Provisioning (device) §7 (the first enrollment that matches decides, and a disabled one ends the
//! search) and §2.3 (what a device without an enrollment is told).

use std::ops::ControlFlow::{self, Break, Continue};

use crate::{AttestationKind, Decision, Enrollment, EnrollmentKind, Request, Verdict, errors};

/// The enrollment that lets the device in.
///
/// A device that cannot prove who it is learns neither whether it is enrolled nor whether the enrollment is disabled.
pub(crate) fn admit(request: &Request) -> ControlFlow<Decision, &Enrollment> {
    let presented = request.evidence.kind;
    let Some(enrollment) = &request.enrollment else {
        // The challenge of a TPM already answers to its endorsement key, so the plain truth gives nothing away.
        return Break(match presented {
            AttestationKind::Tpm => {
                let message = "There is no enrollment for this registration id.";
                Decision::Refused(errors::error(errors::ENROLLMENT_NOT_FOUND, message, "no enrollment matches"))
            }
            AttestationKind::SymmetricKey | AttestationKind::X509 => unauthorized(presented, "no enrollment matches"),
        });
    };
    if let Verdict::Rejected(reason) = &request.evidence.verdict {
        return Break(unauthorized(presented, &format!("enrollment {:?}: {reason}", enrollment.id)));
    }
    if enrollment.attestation != presented {
        let log = format!(
            "enrollment {:?} wants {}, the device presented {}",
            enrollment.id,
            name(enrollment.attestation),
            name(presented)
        );
        return Break(unauthorized(presented, &log));
    }
    let individual = enrollment.kind == EnrollmentKind::Individual;
    if individual && !enrollment.id.eq_ignore_ascii_case(&request.registration_id) {
        return Break(unauthorized(
            presented,
            &format!("individual enrollment {:?} is for another device", enrollment.id),
        ));
    }
    if !enrollment.enabled {
        return Break(Decision::Disabled);
    }
    Continue(enrollment)
}

fn unauthorized(presented: AttestationKind, log: &str) -> Decision {
    let message = match presented {
        AttestationKind::X509 => "Invalid certificate.",
        AttestationKind::SymmetricKey | AttestationKind::Tpm => "Unauthorized",
    };
    Decision::Refused(errors::error(errors::UNAUTHORIZED, message, log))
}

fn name(kind: AttestationKind) -> &'static str {
    match kind {
        AttestationKind::SymmetricKey => "symmetricKey",
        AttestationKind::X509 => "x509",
        AttestationKind::Tpm => "tpm",
    }
}
