//! Keys: `v1/{tenant}/{owner}/{kind}/{id}`, where the owner is a hub's immutable id or that of the provisioning service.
//!
//! Ids are escaped so that no id contains the separator; a kind's prefix therefore covers that kind and nothing else.

use crate::{Identity, Timestamp, escape_key_part};

/// Longest tenant name: keys are bounded.
pub const MAX_TENANT_LENGTH: usize = 50;

/// Who owns a set of hubs. A self-hosted installation has one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant(String);

impl Tenant {
    /// The tenant of a self-hosted installation.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// A tenant by name, cut at [`MAX_TENANT_LENGTH`] and escaped.
    pub fn named(name: &str) -> Self {
        Self(escape_key_part(&name.chars().take(MAX_TENANT_LENGTH).collect::<String>()).into_owned())
    }
}

/// Makes the keys of one owner.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys of `owner` (a hub id, or the provisioning service's id) within `tenant`.
    pub fn new(tenant: &Tenant, owner: &str) -> Self {
        Self { prefix: format!("v1/{}/{}/", tenant.0, escape_key_part(owner)) }
    }

    /// The key of a device or module.
    pub fn identity(&self, identity: &Identity) -> String {
        let device = identity.device_id().as_str();
        match identity.module_id() {
            None => self.key("device", device),
            Some(module) => format!("{}{}", self.modules(device), escape_key_part(module.as_str())),
        }
    }

    /// The prefix of all devices.
    pub fn devices(&self) -> String {
        self.prefix_of("device")
    }

    /// The prefix of the modules of a device.
    pub fn modules(&self, device: &str) -> String {
        format!("{}{}/", self.prefix_of("module"), escape_key_part(device))
    }

    /// The key of the session of a device or module (`device` or `device/module`).
    pub fn session(&self, id: &str) -> String {
        self.key("session", id)
    }

    /// The key of the marker that the outbox of a device, module (`device/module`) or registration is not empty.
    pub fn outbox(&self, id: &str) -> String {
        self.key("outbox", id)
    }

    /// The prefix of all outbox markers.
    pub fn outboxes(&self) -> String {
        self.prefix_of("outbox")
    }

    /// The key of the entry that the connection of a device or module (`device/module`) was announced.
    pub fn announced(&self, id: &str) -> String {
        self.key("announced", id)
    }

    /// The prefix of all announced connections.
    pub fn all_announced(&self) -> String {
        self.prefix_of("announced")
    }

    /// The key of a device's queue of cloud-to-device messages.
    pub fn queue(&self, id: &str) -> String {
        self.key("queue", id)
    }

    /// The prefix of all queues.
    pub fn queues(&self) -> String {
        self.prefix_of("queue")
    }

    /// The key of the contents of a message in a device's queue. Numbers have a fixed length, so that keys have their
    /// order.
    pub fn queued(&self, id: &str, sequence: u64) -> String {
        format!("{}/{sequence:020}", self.key("queued", id))
    }

    /// The key of feedback on a message; keys have the order of time.
    pub fn feedback(&self, at: Timestamp, id: &str, sequence: u64) -> String {
        format!("{}{:020}/{}/{sequence:020}", self.feedbacks(), at.unix_nanos(), escape_key_part(id))
    }

    /// The prefix of all feedback that was not handed out.
    pub fn feedbacks(&self) -> String {
        self.prefix_of("feedback")
    }

    /// The key of feedback that was handed out together; keys have the order of numbers.
    pub fn feedback_batch(&self, number: u64) -> String {
        format!("{}{number:020}", self.feedback_batches())
    }

    /// The prefix of all such feedback.
    pub fn feedback_batches(&self) -> String {
        self.prefix_of("feedbackBatch")
    }

    /// The key of a certificate authority.
    pub fn ca(&self, name: &str) -> String {
        self.key("ca", name)
    }

    /// The prefix of all certificate authorities.
    pub fn cas(&self) -> String {
        self.prefix_of("ca")
    }

    /// The key of an individual enrollment.
    pub fn enrollment(&self, registration_id: &str) -> String {
        self.key("enrollment", registration_id)
    }

    /// The prefix of all individual enrollments.
    pub fn enrollments(&self) -> String {
        self.prefix_of("enrollment")
    }

    /// The key of an enrollment group.
    pub fn group(&self, group_id: &str) -> String {
        self.key("group", group_id)
    }

    /// The prefix of all enrollment groups.
    pub fn groups(&self) -> String {
        self.prefix_of("group")
    }

    /// The key of a registration.
    pub fn registration(&self, registration_id: &str) -> String {
        self.key("registration", registration_id)
    }

    /// The prefix of all registrations.
    pub fn registrations(&self) -> String {
        self.prefix_of("registration")
    }

    /// The key of the index entry "this registration belongs to that group".
    pub fn member(&self, group_id: &str, registration_id: &str) -> String {
        format!("{}{}", self.members(group_id), escape_key_part(registration_id))
    }

    /// The prefix of the index entries of a group.
    pub fn members(&self, group_id: &str) -> String {
        format!("{}{}/", self.prefix_of("member"), escape_key_part(group_id))
    }

    /// The key of a custom allocation policy.
    pub fn policy(&self, name: &str) -> String {
        self.key("policy", name)
    }

    /// The prefix of all custom allocation policies.
    pub fn policies(&self) -> String {
        self.prefix_of("policy")
    }

    /// The key of a piece of a component.
    pub fn component(&self, digest: &str, number: usize) -> String {
        self.key("component", &format!("{digest}.{number:04}"))
    }

    /// The prefix of all pieces of all components.
    pub fn components(&self) -> String {
        self.prefix_of("component")
    }

    /// The key of one of the places for telemetry, where it is in the store because its host has no log.
    pub fn telemetry(&self, partition: u32, place: u64) -> String {
        format!("{}{partition:02}/{place:06}", self.prefix_of("telemetry"))
    }

    /// The key of a document of which an owner has one, such as its settings.
    pub fn single(&self, name: &str) -> String {
        self.key("single", name)
    }

    fn prefix_of(&self, kind: &str) -> String {
        format!("{}{kind}/", self.prefix)
    }

    fn key(&self, kind: &str, id: &str) -> String {
        format!("{}{kind}/{}", self.prefix, escape_key_part(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_reaches_into_another_kind_or_owner() {
        let keys = Keys::new(&Tenant::default_tenant(), "hub1");
        let key = |identity: &str| keys.identity(&Identity::parse(identity).unwrap());
        assert_eq!(key("a"), "v1/default/hub1/device/a");
        assert_eq!(key("a/m"), "v1/default/hub1/module/a/m");
        assert!(!key("ab/m").starts_with(&keys.modules("a")));
        assert!(!key("a%2Fb/m").starts_with(&keys.modules("a")));
        assert!(!keys.member("g", "r").starts_with(&keys.members("g2")));
        assert!(!keys.member("g/r", "x").starts_with(&keys.members("g")));
        assert!(!keys.queued("a/b", 1).starts_with(&keys.queued("a", 1)));
        assert!(!keys.queued("a", 1).starts_with(&keys.queues()));
        assert!(!keys.feedback_batch(1).starts_with(&keys.feedbacks()));
    }

    #[test]
    fn numbers_in_keys_sort_as_numbers() {
        let keys = Keys::new(&Tenant::default_tenant(), "hub1");
        assert!(keys.queued("a", 9) < keys.queued("a", 10));
        let at = Timestamp::from_unix_nanos;
        assert!(keys.feedback(at(9), "z", 2) < keys.feedback(at(10), "a", 1));
        assert!(keys.feedback_batch(99) < keys.feedback_batch(100));
    }
}
