//! The life of one simulated device.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nave_auth::{SasToken, SharedKey};
use nave_mqtt::connect::hub_username;
use nave_mqtt::packet::PacketId;
use nave_mqtt::topic::{Client, FromServer, ToServer, parse_from_server};
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::connection::{Connection, Incoming, PING_EVERY, Trouble};
use super::provision::register;
use super::{Shared, Statistics, stopped};

/// How the devices call themselves.
pub(super) const AGENT: &str = concat!("nave-simulate/", env!("CARGO_PKG_VERSION"));

/// How long a token lasts; the hub ends the session then, and the device comes back with a new one.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(3600);

const API_VERSION: &str = "2021-04-12";

/// Pause before the first attempt to come back; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Shortest time between messages that the desired property `interval` can ask for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// Most messages in flight; a device that is not answered waits.
const MAX_IN_FLIGHT: usize = 100;

const FILTERS: [&str; 3] = ["$iothub/methods/POST/#", "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#"];

/// Lives until the simulation ends.
pub(super) async fn run(shared: Arc<Shared>, id: String, key: SharedKey, scope: Option<String>) {
    let mut stop = shared.stop.clone();
    let life = async {
        let mut home = if scope.is_some() { None } else { Some((shared.host.clone(), id.clone())) };
        let mut pause = FIRST_PAUSE;
        loop {
            let trouble = match (&home, &scope) {
                (None, Some(scope)) => match register(&shared, scope, &id, &key).await {
                    Ok(found) => {
                        Statistics::add(&shared.statistics.registered);
                        home = Some(found);
                        continue;
                    }
                    Err(trouble) => trouble,
                },
                (Some((host, device)), _) => match connect(&shared, host, device, &key).await {
                    Ok(connection) => {
                        pause = FIRST_PAUSE;
                        shared.statistics.connected.fetch_add(1, Ordering::Relaxed);
                        let ended = Online::new(&shared, device, connection).live().await;
                        shared.statistics.connected.fetch_sub(1, Ordering::Relaxed);
                        match ended {
                            Ok(()) => return,
                            Err(trouble) => trouble,
                        }
                    }
                    Err(trouble) => trouble,
                },
                (None, None) => return,
            };
            shared.statistics.fail(&id, &trouble);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    // A device that is online notices the end by itself and says goodbye; one that waits or connects is dropped.
    let patience = async {
        stopped(&mut stop).await;
        tokio::time::sleep(super::GOODBYE / 2).await;
    };
    tokio::select! {
        () = life => {}
        () = patience => {}
    }
}

async fn connect(shared: &Shared, host: &str, device: &str, key: &SharedKey) -> Result<Connection, Trouble> {
    let token = SasToken::create(&format!("{host}/devices/{device}"), key, crate::serve::now().after(TOKEN_LIFE), None);
    let username = hub_username(host, Client::device(device), API_VERSION, AGENT);
    let stream = shared.network.connect(host).await?;
    let mut connection = Connection::open(stream, device, &username, &token).await?;
    connection.subscribe(&FILTERS).await?;
    Ok(connection)
}

/// A connected device.
struct Online<'a> {
    shared: &'a Shared,
    id: &'a str,
    connection: Connection,
    in_flight: HashMap<PacketId, Instant>,
    messages: Option<Interval>,
    period: Option<Duration>,
    sequence: u64,
    requests: u64,
}

impl<'a> Online<'a> {
    fn new(shared: &'a Shared, id: &'a str, connection: Connection) -> Self {
        let mut online = Self {
            shared,
            id,
            connection,
            in_flight: HashMap::new(),
            messages: None,
            period: None,
            sequence: 0,
            requests: 0,
        };
        online.set_period(shared.interval);
        online
    }

    /// Works until the simulation ends (then it says goodbye) or the connection breaks.
    async fn live(mut self) -> Result<(), Trouble> {
        let mut stop = self.shared.stop.clone();
        let mut ping = interval(PING_EVERY);
        self.request_twin().await?;
        self.report(json!({ "simulated": true, "started": crate::serve::now().iso() })).await?;
        loop {
            let ready = self.in_flight.len() < MAX_IN_FLIGHT;
            tokio::select! {
                incoming = self.connection.next() => {
                    let incoming = incoming?;
                    self.connection.flush().await?;
                    self.handle(incoming).await?;
                }
                () = tick(&mut self.messages), if ready => self.send().await?,
                _ = ping.tick() => self.connection.ping().await?,
                () = stopped(&mut stop) => {
                    self.connection.close().await;
                    return Ok(());
                }
            }
        }
    }

    async fn handle(&mut self, incoming: Incoming) -> Result<(), Trouble> {
        match incoming {
            Incoming::PubAck(id) => {
                if let Some(sent) = self.in_flight.remove(&id) {
                    self.shared.statistics.acknowledge(sent.elapsed());
                }
                Ok(())
            }
            Incoming::Publish { topic, payload } => match parse_from_server(&topic) {
                Some(FromServer::Method { rid, .. }) => {
                    // The answer has to be JSON; a method without a payload has none.
                    let answer = if payload.is_empty() { b"null".to_vec() } else { payload };
                    self.connection.publish(&ToServer::MethodResponse { status: 200, rid }, &answer).await?;
                    Statistics::add(&self.shared.statistics.methods);
                    Ok(())
                }
                Some(FromServer::TwinDesired { .. }) => {
                    Statistics::add(&self.shared.statistics.desired);
                    self.obey(&payload).await
                }
                Some(FromServer::TwinResponse { status: 200, .. }) => {
                    let twin: Value = serde_json::from_slice(&payload).unwrap_or_default();
                    match twin.get("desired") {
                        Some(desired) => self.obey(desired.to_string().as_bytes()).await,
                        None => Ok(()),
                    }
                }
                Some(FromServer::TwinResponse { status: 204, .. }) => {
                    Statistics::add(&self.shared.statistics.reported);
                    Ok(())
                }
                Some(FromServer::TwinResponse { status, .. }) => {
                    Err(Trouble::Protocol(format!("a twin request was answered with {status}")))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Follows the desired property `interval`, and reports that it does.
    async fn obey(&mut self, desired: &[u8]) -> Result<(), Trouble> {
        let desired: Value = serde_json::from_slice(desired).unwrap_or_default();
        let Some(seconds) = desired.get("interval").and_then(Value::as_f64) else { return Ok(()) };
        let Ok(period) = Duration::try_from_secs_f64(seconds) else { return Ok(()) };
        self.set_period((!period.is_zero()).then_some(period));
        self.report(json!({ "interval": seconds })).await
    }

    async fn send(&mut self) -> Result<(), Trouble> {
        self.sequence += 1;
        // A temperature that rises and falls, so that graphs look alive.
        #[expect(clippy::cast_precision_loss, reason = "the argument of a sine")]
        let temperature = 20.0 + 5.0 * (self.sequence as f64 / 20.0).sin();
        let mut message = json!({ "sequence": self.sequence, "temperature": (temperature * 100.0).round() / 100.0 });
        if !self.shared.padding.is_empty()
            && let Some(members) = message.as_object_mut()
        {
            members.insert("padding".to_owned(), json!(self.shared.padding));
        }
        // The content type and encoding make routes on the body possible.
        let topic =
            ToServer::Telemetry { client: Client::device(self.id), bag: "%24.ct=application%2Fjson&%24.ce=utf-8" };
        let id = self.connection.publish(&topic, message.to_string().as_bytes()).await?;
        Statistics::add(&self.shared.statistics.sent);
        self.in_flight.insert(id, Instant::now());
        Ok(())
    }

    async fn request_twin(&mut self) -> Result<(), Trouble> {
        let rid = self.request_id();
        self.connection.publish(&ToServer::TwinGet { rid: &rid, since: None }, b"").await?;
        Ok(())
    }

    async fn report(&mut self, properties: Value) -> Result<(), Trouble> {
        let rid = self.request_id();
        let topic = ToServer::TwinPatch { rid: &rid, version: None };
        self.connection.publish(&topic, properties.to_string().as_bytes()).await?;
        Ok(())
    }

    fn request_id(&mut self) -> String {
        self.requests += 1;
        self.requests.to_string()
    }

    fn set_period(&mut self, period: Option<Duration>) {
        let period = period.map(|period| period.max(SHORTEST_INTERVAL));
        if period == self.period {
            return;
        }
        self.period = period;
        self.messages = period.map(|period| {
            let mut messages = interval(period);
            messages.set_missed_tick_behavior(MissedTickBehavior::Delay);
            messages
        });
    }
}

/// The next moment to send; never without an interval.
async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
