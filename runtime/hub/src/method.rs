//! Direct methods: from a service's call to the device and back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use nave_engine::methods::{Answered, Call, DeviceAnswer, Plan, Presence, Refusal};
use nave_model::{DeviceStatus, Identity, SessionRecord};

use crate::bus::{HostId, HostMessage, HostReply};
use crate::error::{ErrorCode, HubError};
use crate::hub::{Hub, decode};
use crate::session::{MethodAnswer, Subscriptions};
use crate::throttle::Operation;

/// What direct methods are metered in (protocol notes: limits §3).
const METHOD_METER_BYTES: usize = 4_096;

impl Hub {
    /// Calls a method of a device. `body` is the request's; the answer is the response's body.
    ///
    /// # Errors
    ///
    /// As the methods function decides: 400, 404 (unknown or not online), 502, 504, 429.
    pub async fn call_method(&self, identity: &Identity, body: &str) -> Result<String, HubError> {
        let began = self.env.monotonic();
        let outcome = self.invoke(identity, body).await;
        self.metrics().method(&outcome, self.env.monotonic().since(began));
        outcome
    }

    async fn invoke(&self, identity: &Identity, body: &str) -> Result<String, HubError> {
        let metered = body.len().next_multiple_of(METHOD_METER_BYTES);
        self.pass(Operation::MethodBytes, metered as u64).await?;
        let (presence, elsewhere) = self.presence(identity).await?;
        let plan = self.functions.begin_method(body, presence)?;
        let (call, wait) = match plan {
            Plan::Deliver(call) => (call, Duration::ZERO),
            Plan::Wait(call) => {
                let wait = Duration::from_millis(call.timeouts.connect_ms.into());
                (call, wait)
            }
            Plan::Refuse(refusal) => return Err(refused(refusal)),
        };
        let answer = match self.carry_out(identity, &call, wait, elsewhere).await {
            MethodAnswer::Answered { status, payload } => {
                DeviceAnswer::Answered(Answered { status_text: status, payload })
            }
            MethodAnswer::NoAnswer => DeviceAnswer::NoAnswer,
            MethodAnswer::Disconnected => DeviceAnswer::Disconnected,
            MethodAnswer::NotConnected | MethodAnswer::NotSubscribed => DeviceAnswer::NeverConnected,
            MethodAnswer::Saturated => {
                return match self.functions.begin_method(body, Presence::Saturated)? {
                    Plan::Refuse(refusal) => Err(refused(refusal)),
                    _ => Err(HubError::internal("the methods function does not refuse a saturated device")),
                };
            }
        };
        self.functions.complete_method(call.timeouts, &answer)?.map_err(refused)
    }

    /// What is known of the device, and the other host that may hold its connection.
    async fn presence(&self, identity: &Identity) -> Result<(Presence, Option<HostId>), HubError> {
        let Some((record, _)) = self.load(identity).await? else {
            return Ok((Presence::UnknownDevice, None));
        };
        let owner = match identity.module_id() {
            None => None,
            Some(_) => self.load(&Identity::device(identity.device_id().clone())).await?,
        };
        let status = owner.map_or(record.status, |(device, _)| device.status);
        if status == DeviceStatus::Disabled {
            return Ok((Presence::Disabled, None));
        }
        if let Some(session) = self.sessions.get(identity) {
            let subscribed = session.subscriptions().contains(Subscriptions::METHODS);
            return Ok((if subscribed { Presence::Online } else { Presence::NotSubscribed }, None));
        }
        let Some(entry) = self.store.get(&self.keys.session(&identity.to_string())).await? else {
            return Ok((Presence::Offline, None));
        };
        let (stored, _) = decode::<SessionRecord>(&entry)?;
        if stored.host == self.host.as_str() {
            return Ok((Presence::Offline, None));
        }
        // Only the other host knows whether the connection still is; it answers "not connected" if not.
        Ok((Presence::Online, Some(HostId::new(&stored.host))))
    }

    async fn carry_out(
        &self,
        identity: &Identity,
        call: &Call,
        wait: Duration,
        elsewhere: Option<HostId>,
    ) -> MethodAnswer {
        let timeout = Duration::from_millis(call.timeouts.response_ms.into());
        if let Some(host) = elsewhere {
            let message = HostMessage::Method {
                hub: self.id().as_str().to_owned(),
                identity: identity.clone(),
                name: call.name.clone(),
                payload: call.payload_json.clone(),
                timeout,
            };
            return match self.bus.send(host, message).await {
                Ok(HostReply::Method(answer)) => answer,
                _ => MethodAnswer::NotConnected,
            };
        }
        if !wait.is_zero() && !self.wait_for_methods(identity, wait).await {
            return MethodAnswer::NotConnected;
        }
        self.deliver_method(identity, &call.name, &call.payload_json, timeout).await
    }

    /// Waits until the device is connected here and subscribed to methods.
    async fn wait_for_methods(&self, identity: &Identity, wait: Duration) -> bool {
        let ready = |hub: &Self| {
            let session = hub.sessions.get(identity);
            session.is_some_and(|session| session.subscriptions().contains(Subscriptions::METHODS))
        };
        let mut timeout = self.env.sleep(wait);
        loop {
            let mut changed = std::pin::pin!(self.sessions.changed());
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            if ready(self) {
                return true;
            }
            match select(changed, timeout).await {
                Either::Left((_, remaining)) => timeout = remaining,
                Either::Right(_) => return ready(self),
            }
        }
    }

    /// Sends a call to a device that is connected here, and waits for its answer.
    pub(crate) async fn deliver_method(
        &self,
        identity: &Identity,
        name: &str,
        payload: &str,
        timeout: Duration,
    ) -> MethodAnswer {
        let Some(session) = self.sessions.get(identity) else { return MethodAnswer::NotConnected };
        let (_pending, answer) = match Arc::clone(&session).call_method(name, payload) {
            Ok(call) => call,
            Err(answer) => return answer,
        };
        match select(answer, self.env.sleep(timeout)).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(_), _)) => MethodAnswer::Disconnected,
            Either::Right(_) => MethodAnswer::NoAnswer,
        }
    }
}

fn refused(refusal: Refusal) -> HubError {
    match ErrorCode::from_number(refusal.error_code) {
        Some(code) => HubError { info: refusal.info_json, ..HubError::new(code, refusal.message) },
        None => HubError::internal(format_args!(
            "the methods function answered with the unknown code {} {}: {}",
            refusal.error_code, refusal.error_name, refusal.message
        )),
    }
}
