//! The APIs of the provisioning service: its paths, and the right that each asks for (protocol notes: authorization §4).

use http::Method;
use nave_auth::DpsRights;
use nave_hub::HubError;
use nave_hub::audit::Actor;
use nave_model::EnrollmentKind;

use crate::call::Call;
use crate::reply::Reply;
use crate::route::{self, Target, check_dps_version, not_allowed};
use crate::service::Body;
use crate::{enrollments, policies, provision, registrations};

/// What a path stands for.
#[derive(Clone, Copy)]
enum Resource {
    /// All enrollments of a kind: bulk operations.
    Enrollments(EnrollmentKind),
    EnrollmentQuery(EnrollmentKind),
    Enrollment(EnrollmentKind),
    Attestation(EnrollmentKind),
    Registration,
    RegistrationQuery,
    /// Custom allocation policies, which the cloud service does not have.
    Policies,
    Policy,
    PolicyActivation,
    PolicyRollback,
    PolicyVersion,
    /// A device's own registration, below an id scope.
    Device(provision::Operation),
}

/// Whether a path can only be one of the provisioning service. Needed where a hub answers to the same host name.
pub(crate) fn is_path(target: &Target) -> bool {
    let words = target.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["enrollments" | "enrollmentgroups" | "registrations" | "allocationpolicies", ..] | [_, "registrations", ..]
    )
}

/// Answers a request to the provisioning service.
pub(crate) async fn answer(call: &Call, body: Body) -> Result<Reply, HubError> {
    let resource = resource(call).ok_or_else(route::not_found)?;
    check_dps_version(&call.target)?;
    if let Resource::Device(operation) = resource {
        return provision::answer(operation, call, body).await;
    }
    let rights = rights(resource, &call.method).ok_or_else(|| not_allowed(&call.method))?;
    let facts = call.platform.provisioning().authorize(call.token(), &call.target.segments(), rights)?;
    let is_configuration = rights == DpsRights::SERVICE_CONFIG && call.method != Method::GET;
    if is_configuration || rights == DpsRights::ENROLLMENT_WRITE || rights == DpsRights::REGISTRATION_STATUS_WRITE {
        call.changes_as(Actor::Policy(facts.policy.as_str().to_owned()));
    }
    call.platform.provisioning().pass().await?;
    match resource {
        Resource::Enrollments(kind) => enrollments::bulk(kind, call, body).await,
        Resource::EnrollmentQuery(kind) => enrollments::query(kind, call, body).await,
        Resource::Enrollment(kind) => match call.method {
            Method::PUT => enrollments::put(kind, call, body).await,
            Method::DELETE => enrollments::delete(kind, call).await,
            _ => enrollments::get(kind, call).await,
        },
        Resource::Attestation(kind) => enrollments::attestation(kind, call).await,
        Resource::Registration => match call.method {
            Method::DELETE => registrations::delete(call).await,
            _ => registrations::get(call).await,
        },
        Resource::RegistrationQuery => registrations::query(call, body).await,
        Resource::Policies => policies::list(call).await,
        Resource::Policy => match call.method {
            Method::PATCH => policies::configure(call, body).await,
            Method::DELETE => policies::delete(call).await,
            _ => policies::get(call).await,
        },
        Resource::PolicyActivation => policies::activate(call, body).await,
        Resource::PolicyRollback => policies::roll_back(call).await,
        Resource::PolicyVersion => match call.method {
            Method::PUT => policies::push(call, body).await,
            Method::DELETE => policies::delete_version(call).await,
            _ => policies::component(call).await,
        },
        Resource::Device(_) => Err(route::not_found()),
    }
}

/// The rights for a method at a resource; `None` where the method does not exist.
fn rights(resource: Resource, method: &Method) -> Option<DpsRights> {
    match (resource, method) {
        (Resource::Enrollment(_), &Method::GET) | (Resource::EnrollmentQuery(_), &Method::POST) => {
            Some(DpsRights::ENROLLMENT_READ)
        }
        (Resource::Attestation(_), &Method::POST) => Some(DpsRights::ENROLLMENT_READ),
        (Resource::Enrollment(_), &Method::PUT | &Method::DELETE) | (Resource::Enrollments(_), &Method::POST) => {
            Some(DpsRights::ENROLLMENT_WRITE)
        }
        (Resource::Registration, &Method::GET) | (Resource::RegistrationQuery, &Method::POST) => {
            Some(DpsRights::REGISTRATION_STATUS_READ)
        }
        (Resource::Registration, &Method::DELETE) => Some(DpsRights::REGISTRATION_STATUS_WRITE),
        (Resource::Policies, &Method::GET)
        | (Resource::Policy, &Method::GET | &Method::PATCH | &Method::DELETE)
        | (Resource::PolicyActivation | Resource::PolicyRollback, &Method::POST)
        | (Resource::PolicyVersion, &Method::GET | &Method::PUT | &Method::DELETE) => Some(DpsRights::SERVICE_CONFIG),
        _ => None,
    }
}

fn resource(call: &Call) -> Option<Resource> {
    let words = call.target.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let post = call.method == Method::POST;
    let kind = match words.first() {
        Some(&"enrollments") => Some(EnrollmentKind::Individual),
        Some(&"enrollmentgroups") => Some(EnrollmentKind::Group),
        _ => None,
    };
    Some(match (kind, words.as_slice()) {
        (Some(kind), [_]) => Resource::Enrollments(kind),
        (Some(kind), [_, "query"]) if post => Resource::EnrollmentQuery(kind),
        (Some(kind), [_, _]) => Resource::Enrollment(kind),
        (Some(kind), [_, _, "attestationmechanism"]) => Resource::Attestation(kind),
        (None, ["registrations", _]) => Resource::Registration,
        (None, ["registrations", _, "query"]) => Resource::RegistrationQuery,
        (None, ["allocationpolicies"]) => Resource::Policies,
        (None, ["allocationpolicies", _]) => Resource::Policy,
        (None, ["allocationpolicies", _, "activate"]) => Resource::PolicyActivation,
        (None, ["allocationpolicies", _, "rollback"]) => Resource::PolicyRollback,
        (None, ["allocationpolicies", _, "versions", _]) => Resource::PolicyVersion,
        (None, [_, "registrations", _]) => Resource::Device(provision::Operation::LookUp),
        (None, [_, "registrations", _, "register"]) => Resource::Device(provision::Operation::Register),
        (None, [_, "registrations", _, "operations", _]) => Resource::Device(provision::Operation::Status),
        _ => return None,
    })
}
