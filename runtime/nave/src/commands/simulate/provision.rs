//! A device registers with the provisioning service by MQTT.

use std::time::Duration;

use nave_auth::{REGISTRATION_KEY_NAME, SasToken, SharedKey};
use nave_mqtt::connect::dps_username;
use nave_mqtt::topic::{DPS_RESPONSES_FILTER, ToServer};
use serde_json::{Value, json};

use super::Shared;
use super::connection::{Connection, Incoming, Trouble};
use super::device::{AGENT, TOKEN_LIFE};

const API_VERSION: &str = "2019-03-31";

/// How often a device asks how its registration goes before it gives up.
const MAX_POLLS: u32 = 30;

/// Pause between two questions if the service names none.
const POLL_AFTER: Duration = Duration::from_secs(2);

/// Registers and returns the hub's host name and the device id there.
pub(super) async fn register(
    shared: &Shared,
    scope: &str,
    registration_id: &str,
    key: &SharedKey,
) -> Result<(String, String), Trouble> {
    let resource = format!("{scope}/registrations/{registration_id}");
    let token = SasToken::create(&resource, key, crate::serve::now().after(TOKEN_LIFE), Some(REGISTRATION_KEY_NAME));
    let stream = shared.network.connect(&shared.host).await?;
    let username = dps_username(scope, registration_id, API_VERSION, AGENT);
    let mut connection = Connection::open(stream, registration_id, &username, &token).await?;
    connection.subscribe(&[DPS_RESPONSES_FILTER]).await?;
    let document = json!({ "registrationId": registration_id }).to_string();
    connection.publish(&ToServer::DpsRegister { rid: "1" }, document.as_bytes()).await?;
    for attempt in 0..MAX_POLLS {
        let (status, retry_after, body) = answer(&mut connection).await?;
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        match (status, text("/status").as_deref()) {
            (200, Some("assigned")) => {
                let incomplete = || Trouble::Protocol("assigned, but not to which hub".to_owned());
                let hub = text("/registrationState/assignedHub").ok_or_else(incomplete)?;
                let device = text("/registrationState/deviceId").ok_or_else(incomplete)?;
                connection.close().await;
                return Ok((hub, device));
            }
            (202, _) => {
                let operation = text("/operationId").ok_or_else(|| Trouble::Protocol("no operation id".to_owned()))?;
                tokio::time::sleep(retry_after.unwrap_or(POLL_AFTER)).await;
                let rid = (attempt + 2).to_string();
                connection.publish(&ToServer::DpsOperationStatus { rid: &rid, operation_id: &operation }, b" ").await?;
            }
            (status, _) => {
                let message = text("/registrationState/errorMessage").or_else(|| text("/message")).unwrap_or_default();
                return Err(Trouble::Refused(format!("registration: {status} {message}")));
            }
        }
    }
    Err(Trouble::Timeout("the registration"))
}

/// The next answer of the service: its status, its `retry-after`, its document.
async fn answer(connection: &mut Connection) -> Result<(u16, Option<Duration>, Value), Trouble> {
    loop {
        if let Incoming::Publish { topic, payload } = connection.answer("the registration").await? {
            let (status, retry_after) =
                response_topic(&topic).ok_or_else(|| Trouble::Protocol("an answer with a strange topic".to_owned()))?;
            let body = serde_json::from_slice(&payload)
                .map_err(|error| Trouble::Protocol(format!("an answer that is not JSON: {error}")))?;
            return Ok((status, retry_after, body));
        }
    }
}

/// Reads `$dps/registrations/res/{status}/?$rid={rid}&retry-after={seconds}`.
fn response_topic(topic: &str) -> Option<(u16, Option<Duration>)> {
    let rest = topic.strip_prefix("$dps/registrations/res/")?;
    let (status, query) = rest.split_once("/?")?;
    let retry_after = query.split('&').find_map(|pair| pair.strip_prefix("retry-after="));
    Some((status.parse().ok()?, retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs)))
}

#[cfg(test)]
mod tests {
    use nave_mqtt::topic::ToClient;

    use super::*;

    #[test]
    fn reads_what_the_server_writes() {
        let read =
            |retry_after| response_topic(&ToClient::DpsResponse { status: 202, rid: "1", retry_after }.to_string());
        assert_eq!(read(Some(3)), Some((202, Some(Duration::from_secs(3)))));
        assert_eq!(read(None), Some((202, None)));
        assert_eq!(response_topic("$iothub/twin/res/200/?$rid=1"), None);
    }
}
