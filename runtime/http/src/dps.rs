//! The APIs of the provisioning service: every path, and the right that each asks for (protocol notes: authorization §4).

use http::Method;
use nave_auth::DpsRights;
use nave_hub::HubError;
use nave_hub::audit::Actor;
use nave_model::EnrollmentKind;

use crate::call::Call;
use crate::reply::Reply;
use crate::route::{self, Target, check_dps_version, not_allowed};
use crate::service::Body;
use crate::table::{Access, Answer, Content, EMPTY, Found, Route, Verb, find, json, ok, route};
use crate::{enrollments, policies, provision, registrations};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Do {
    ChangeEnrollments(EnrollmentKind),
    QueryEnrollments(EnrollmentKind),
    GetEnrollment(EnrollmentKind),
    PutEnrollment(EnrollmentKind),
    DeleteEnrollment(EnrollmentKind),
    ShowAttestation(EnrollmentKind),
    GetRegistration,
    DeleteRegistration,
    QueryRegistrations,
    ListPolicies,
    GetPolicy,
    ConfigurePolicy,
    DeletePolicy,
    ActivatePolicy,
    RollBackPolicy,
    PushVersion,
    GetVersion,
    DeleteVersion,
    RecordPolicy,
    GetRecording,
    EndRecording,
    /// A device's own registration, below an id scope.
    Device(provision::Operation),
}

const ENROLLMENT_READ: Access = Access::Dps(DpsRights::ENROLLMENT_READ);
const ENROLLMENT_WRITE: Access = Access::Dps(DpsRights::ENROLLMENT_WRITE);
const STATUS_READ: Access = Access::Dps(DpsRights::REGISTRATION_STATUS_READ);
const STATUS_WRITE: Access = Access::Dps(DpsRights::REGISTRATION_STATUS_WRITE);
const CONFIG: Access = Access::Dps(DpsRights::SERVICE_CONFIG);

const COMPONENT: Content = Content("application/wasm", None);
const OPERATION: Content = json("RegistrationOperation");

/// Everything that the provisioning service serves.
pub(crate) const ROUTES: &[Route<Do>] = &[
    Route {
        body: Some(json("BulkEnrollments")),
        ..route(
            Verb::Post,
            "/enrollments",
            Do::ChangeEnrollments(EnrollmentKind::Individual),
            ENROLLMENT_WRITE,
            ("changeEnrollments", "Changes up to ten enrollments; each succeeds or fails by itself."),
            &[ok("BulkEnrollmentResult")],
        )
    },
    Route {
        takes: &["maxItemCount", "continuation"],
        body: Some(json("Query")),
        ..route(
            Verb::Post,
            "/enrollments/query",
            Do::QueryEnrollments(EnrollmentKind::Individual),
            ENROLLMENT_READ,
            ("listEnrollments", "Lists enrollments, page by page."),
            &[ok("Enrollments")],
        )
    },
    route(
        Verb::Get,
        "/enrollments/{registrationId}",
        Do::GetEnrollment(EnrollmentKind::Individual),
        ENROLLMENT_READ,
        ("getEnrollment", "An enrollment, without its secrets."),
        &[ok("Enrollment")],
    ),
    Route {
        takes: &["ifMatch"],
        body: Some(json("EnrollmentInput")),
        ..route(
            Verb::Put,
            "/enrollments/{registrationId}",
            Do::PutEnrollment(EnrollmentKind::Individual),
            ENROLLMENT_WRITE,
            ("putEnrollment", "Creates an enrollment, or with If-Match replaces it."),
            &[ok("Enrollment")],
        )
    },
    Route {
        takes: &["ifMatch"],
        ..route(
            Verb::Delete,
            "/enrollments/{registrationId}",
            Do::DeleteEnrollment(EnrollmentKind::Individual),
            ENROLLMENT_WRITE,
            ("deleteEnrollment", "Deletes an enrollment."),
            &[EMPTY],
        )
    },
    route(
        Verb::Post,
        "/enrollments/{registrationId}/attestationmechanism",
        Do::ShowAttestation(EnrollmentKind::Individual),
        ENROLLMENT_READ,
        (
            "showEnrollmentAttestation",
            "How the devices of an enrollment prove who they are: the only answer with secrets.",
        ),
        &[ok("Attestation")],
    ),
    Route {
        body: Some(json("BulkEnrollmentGroups")),
        ..route(
            Verb::Post,
            "/enrollmentGroups",
            Do::ChangeEnrollments(EnrollmentKind::Group),
            ENROLLMENT_WRITE,
            ("changeEnrollmentGroups", "Changes up to ten enrollment groups; each succeeds or fails by itself."),
            &[ok("BulkEnrollmentResult")],
        )
    },
    Route {
        takes: &["maxItemCount", "continuation"],
        body: Some(json("Query")),
        ..route(
            Verb::Post,
            "/enrollmentGroups/query",
            Do::QueryEnrollments(EnrollmentKind::Group),
            ENROLLMENT_READ,
            ("listEnrollmentGroups", "Lists enrollment groups, page by page."),
            &[ok("EnrollmentGroups")],
        )
    },
    route(
        Verb::Get,
        "/enrollmentGroups/{enrollmentGroupId}",
        Do::GetEnrollment(EnrollmentKind::Group),
        ENROLLMENT_READ,
        ("getEnrollmentGroup", "An enrollment group, without its secrets."),
        &[ok("EnrollmentGroup")],
    ),
    Route {
        takes: &["ifMatch"],
        body: Some(json("EnrollmentGroupInput")),
        ..route(
            Verb::Put,
            "/enrollmentGroups/{enrollmentGroupId}",
            Do::PutEnrollment(EnrollmentKind::Group),
            ENROLLMENT_WRITE,
            ("putEnrollmentGroup", "Creates an enrollment group, or with If-Match replaces it."),
            &[ok("EnrollmentGroup")],
        )
    },
    Route {
        takes: &["ifMatch"],
        ..route(
            Verb::Delete,
            "/enrollmentGroups/{enrollmentGroupId}",
            Do::DeleteEnrollment(EnrollmentKind::Group),
            ENROLLMENT_WRITE,
            ("deleteEnrollmentGroup", "Deletes an enrollment group."),
            &[EMPTY],
        )
    },
    route(
        Verb::Post,
        "/enrollmentGroups/{enrollmentGroupId}/attestationmechanism",
        Do::ShowAttestation(EnrollmentKind::Group),
        ENROLLMENT_READ,
        (
            "showEnrollmentGroupAttestation",
            "How the devices of an enrollment group prove who they are: the only answer with secrets.",
        ),
        &[ok("Attestation")],
    ),
    route(
        Verb::Get,
        "/registrations/{registrationId}",
        Do::GetRegistration,
        STATUS_READ,
        ("getRegistration", "What became of a device."),
        &[ok("Registration")],
    ),
    Route {
        takes: &["ifMatch"],
        ..route(
            Verb::Delete,
            "/registrations/{registrationId}",
            Do::DeleteRegistration,
            STATUS_WRITE,
            ("deleteRegistration", "Forgets what became of a device; the device stays in its hub."),
            &[EMPTY],
        )
    },
    Route {
        takes: &["maxItemCount", "continuation"],
        body: Some(json("Query")),
        ..route(
            Verb::Post,
            "/registrations/{enrollmentGroupId}/query",
            Do::QueryRegistrations,
            STATUS_READ,
            ("listRegistrations", "Lists what became of the devices of a group, page by page."),
            &[ok("Registrations")],
        )
    },
    route(
        Verb::Get,
        "/allocationPolicies",
        Do::ListPolicies,
        CONFIG,
        ("listPolicies", "Lists custom allocation policies. Nave's own, as all of these."),
        &[ok("AllocationPolicies")],
    ),
    route(
        Verb::Get,
        "/allocationPolicies/{policyName}",
        Do::GetPolicy,
        CONFIG,
        ("getPolicy", "A policy with its versions."),
        &[ok("AllocationPolicy")],
    ),
    Route {
        takes: &["ifMatch"],
        body: Some(json("PolicySettings")),
        ..route(
            Verb::Patch,
            "/allocationPolicies/{policyName}",
            Do::ConfigurePolicy,
            CONFIG,
            ("configurePolicy", "Sets the limits of a policy, and whether its output is logged."),
            &[ok("AllocationPolicy")],
        )
    },
    Route {
        takes: &["ifMatch", "force"],
        ..route(
            Verb::Delete,
            "/allocationPolicies/{policyName}",
            Do::DeletePolicy,
            CONFIG,
            ("deletePolicy", "Deletes a policy that no enrollment names, by force any."),
            &[EMPTY],
        )
    },
    Route {
        takes: &["ifMatch"],
        body: Some(json("PolicyActivation")),
        ..route(
            Verb::Post,
            "/allocationPolicies/{policyName}/activate",
            Do::ActivatePolicy,
            CONFIG,
            ("activatePolicy", "Makes a version decide, for all devices or for some on trial."),
            &[ok("AllocationPolicy")],
        )
    },
    Route {
        takes: &["ifMatch"],
        ..route(
            Verb::Post,
            "/allocationPolicies/{policyName}/rollback",
            Do::RollBackPolicy,
            CONFIG,
            ("rollBackPolicy", "Ends the trial, or makes the previous version decide again."),
            &[ok("AllocationPolicy")],
        )
    },
    route(
        Verb::Get,
        "/allocationPolicies/{policyName}/versions/{version}",
        Do::GetVersion,
        CONFIG,
        ("getPolicyVersion", "The component of a version."),
        &[Answer(200, Some(COMPONENT))],
    ),
    Route {
        takes: &["ifMatch", "contentDigest", "signature", "source"],
        body: Some(COMPONENT),
        ..route(
            Verb::Put,
            "/allocationPolicies/{policyName}/versions/{version}",
            Do::PushVersion,
            CONFIG,
            ("pushPolicyVersion", "Adds a version, and with the first one the policy."),
            &[ok("AllocationPolicy")],
        )
    },
    Route {
        takes: &["ifMatch", "force"],
        ..route(
            Verb::Delete,
            "/allocationPolicies/{policyName}/versions/{version}",
            Do::DeleteVersion,
            CONFIG,
            (
                "deletePolicyVersion",
                "Deletes a version that decides nothing and that no enrollment names, by force any.",
            ),
            &[EMPTY],
        )
    },
    Route {
        body: Some(json("PolicyRecordingRequest")),
        ..route(
            Verb::Post,
            "/allocationPolicies/{policyName}/recording",
            Do::RecordPolicy,
            CONFIG,
            ("recordPolicy", "Begins to record what a policy is asked and answers."),
            &[ok("PolicyRecording")],
        )
    },
    route(
        Verb::Get,
        "/allocationPolicies/{policyName}/recording",
        Do::GetRecording,
        CONFIG,
        ("getPolicyRecording", "What was recorded of a policy."),
        &[ok("PolicyRecording")],
    ),
    route(
        Verb::Delete,
        "/allocationPolicies/{policyName}/recording",
        Do::EndRecording,
        CONFIG,
        ("endPolicyRecording", "Ends a recording and forgets it."),
        &[EMPTY],
    ),
    Route {
        takes: &["forceRegistration"],
        body: Some(json("RegistrationRequest")),
        ..route(
            Verb::Put,
            "/{idScope}/registrations/{registrationId}/register",
            Do::Device(provision::Operation::Register),
            Access::Registration,
            ("register", "A device registers; it is told to ask for the outcome, or (a setting) told the outcome."),
            &[Answer(202, Some(OPERATION)), Answer(200, Some(OPERATION))],
        )
    },
    route(
        Verb::Get,
        "/{idScope}/registrations/{registrationId}/operations/{operationId}",
        Do::Device(provision::Operation::Status),
        Access::Registration,
        ("registrationStatus", "What became of a registration; 202 as long as it goes on."),
        &[Answer(200, Some(OPERATION)), Answer(202, Some(OPERATION))],
    ),
    Route {
        body: Some(json("RegistrationRequest")),
        ..route(
            Verb::Post,
            "/{idScope}/registrations/{registrationId}",
            Do::Device(provision::Operation::LookUp),
            Access::Registration,
            ("lookUpRegistration", "A device asks where it was assigned to before."),
            &[ok("Registration")],
        )
    },
];

/// Whether a path can only be one of the provisioning service. Needed where a hub answers to the same host name.
pub(crate) fn is_path(target: &Target) -> bool {
    let words = target.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["enrollments" | "enrollmentgroups" | "registrations" | "allocationpolicies", ..] => true,
        // Where a hub's paths have ids, a device may be called like that; no id scope is one of these words.
        ["devices" | "twins" | "jobs" | "configurations" | "digitaltwins", ..] => false,
        [_, "registrations", ..] => true,
        _ => false,
    }
}

/// Whether a request may change something, so that it is carried out to its end even if the client goes away. A device's
/// registration sees to that itself.
pub(crate) fn changes(call: &Call) -> bool {
    let Found::Operation(route) = find(ROUTES, &call.target.segments(), &call.method) else { return false };
    match route.does {
        Do::QueryEnrollments(_) | Do::QueryRegistrations | Do::ShowAttestation(_) | Do::Device(_) => false,
        _ => call.method != Method::GET,
    }
}

/// Answers a request to the provisioning service.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Reply, HubError> {
    let words = call.target.segments();
    let found = find(ROUTES, &words, &call.method);
    if matches!(found, Found::Nothing) {
        return Err(route::not_found());
    }
    check_dps_version(&call.target)?;
    let Found::Operation(route) = found else { return Err(not_allowed(&call.method)) };
    let service = call.platform.provisioning();
    nave_trace::routed(service.id_scope().as_str(), route.path);
    if let Access::Dps(rights) = route.access {
        let facts = service.authorize(call.token(), &words, rights)?;
        let is_configuration = rights == DpsRights::SERVICE_CONFIG && call.method != Method::GET;
        if is_configuration || rights == DpsRights::ENROLLMENT_WRITE || rights == DpsRights::REGISTRATION_STATUS_WRITE {
            call.changes_as(Actor::Policy(facts.policy.as_str().to_owned()));
        }
        // A request for several enrollments is counted once it is known for how many.
        if !matches!(route.does, Do::ChangeEnrollments(_)) {
            service.pass(1).await?;
        }
    }
    match route.does {
        Do::ChangeEnrollments(kind) => enrollments::bulk(kind, call, body).await,
        Do::QueryEnrollments(kind) => enrollments::query(kind, call, body).await,
        Do::GetEnrollment(kind) => enrollments::get(kind, call).await,
        Do::PutEnrollment(kind) => enrollments::put(kind, call, body).await,
        Do::DeleteEnrollment(kind) => enrollments::delete(kind, call).await,
        Do::ShowAttestation(kind) => enrollments::attestation(kind, call).await,
        Do::GetRegistration => registrations::get(call).await,
        Do::DeleteRegistration => registrations::delete(call).await,
        Do::QueryRegistrations => registrations::query(call, body).await,
        Do::ListPolicies => policies::list(call).await,
        Do::GetPolicy => policies::get(call).await,
        Do::ConfigurePolicy => policies::configure(call, body).await,
        Do::DeletePolicy => policies::delete(call).await,
        Do::ActivatePolicy => policies::activate(call, body).await,
        Do::RollBackPolicy => policies::roll_back(call).await,
        Do::PushVersion => policies::push(call, body).await,
        Do::GetVersion => policies::component(call).await,
        Do::DeleteVersion => policies::delete_version(call).await,
        Do::RecordPolicy => policies::record(call, body).await,
        Do::GetRecording => policies::recording(call),
        Do::EndRecording => policies::end_recording(call),
        Do::Device(operation) => provision::answer(operation, call, body).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_may_be_called_like_a_word_of_the_provisioning_service() {
        let ours = |path: &str| is_path(&Target::parse(&path.parse().unwrap()).unwrap());
        assert!(
            ours("/0ne00000001/registrations/r/register") && ours("/enrollments/devices") && ours("/registrations/r")
        );
        assert!(!ours("/devices/registrations") && !ours("/twins/registrations/methods"));
    }
}
