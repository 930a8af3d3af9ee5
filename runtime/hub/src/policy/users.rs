//! Which enrollments use a policy: what keeps it from being deleted.

use nave_model::{AllocationPolicyName, AllocationPolicyReference, AllocationPolicyVersion, EnrollmentRecord};

use super::Policies;
use crate::error::{ErrorCode, HubError};
use crate::hub::decode;

/// Enrollments that are named to whoever wants to delete what they use; that there are more is all that is said of more.
const MAX_NAMED: usize = 5;

/// Enrollments that are read at once. Deleting is rare, and there may be very many of them.
const PAGE: usize = 500;

impl Policies {
    /// Refuses if an enrollment uses the policy or, if one is given, names that version. An enrollment that is written in
    /// this very moment may be missed; its devices then fail to register with an error that names the policy.
    pub(super) async fn ensure_unused(
        &self,
        name: &AllocationPolicyName,
        version: Option<&AllocationPolicyVersion>,
    ) -> Result<(), HubError> {
        let users = self.users(name, version).await?;
        if users.is_empty() {
            return Ok(());
        }
        let what = match version {
            Some(version) => format!("Version '{version}' of the allocation policy '{name}'"),
            None => format!("The allocation policy '{name}'"),
        };
        let more = if users.len() > MAX_NAMED { " and others" } else { "" };
        let named: Vec<_> = users.into_iter().take(MAX_NAMED).collect();
        Err(HubError::new(
            ErrorCode::GenericConflict,
            format!(
                "{what} is used by {}{more}: change or delete them first, or force the deletion.",
                named.join(", ")
            ),
        ))
    }

    /// The first enrollments that use it, up to one more than are named.
    async fn users(
        &self,
        name: &AllocationPolicyName,
        version: Option<&AllocationPolicyVersion>,
    ) -> Result<Vec<String>, HubError> {
        let mut users = Vec::new();
        for (prefix, kind) in [(self.keys.groups(), "enrollment group"), (self.keys.enrollments(), "enrollment")] {
            let mut after: Option<String> = None;
            loop {
                let entries = self.store.scan(&prefix, after.as_deref(), PAGE).await?;
                let is_last = entries.len() < PAGE;
                for (key, entry) in entries {
                    let record = decode::<EnrollmentRecord>(&entry)?.0;
                    if uses(&record, name, version) {
                        users.push(format!("the {kind} '{}'", record.id));
                        if users.len() > MAX_NAMED {
                            return Ok(users);
                        }
                    }
                    after = Some(key);
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(users)
    }
}

/// Whether it refers to the policy, also while another allocation policy is chosen: an SDK that writes it back sends the
/// definition along.
fn uses(record: &EnrollmentRecord, name: &AllocationPolicyName, version: Option<&AllocationPolicyVersion>) -> bool {
    let url = record.webhook.as_ref().map(|webhook| webhook.url.as_str());
    let reference = url.and_then(|url| AllocationPolicyReference::parse(url).ok());
    reference.is_some_and(|reference| {
        reference.name == *name && version.is_none_or(|version| reference.version.as_ref() == Some(version))
    })
}
