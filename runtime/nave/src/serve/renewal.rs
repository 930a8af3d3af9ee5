//! Looks after the server's certificate while the hub runs, for hubs that run for a year.

use std::sync::mpsc;
use std::time::Duration;

use nave_env::SharedEnv;

use super::Event;

/// How often the certificate is looked at: its age, if it is the development CA's; whether the file has changed, if it is
/// the operator's.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);

/// Asks for a look at the certificate from time to time, until nobody listens any more.
pub(super) fn start(env: &SharedEnv, control: mpsc::Sender<Event>) {
    let again = SharedEnv::clone(env);
    env.spawn(Box::pin(async move {
        loop {
            again.sleep(LOOK_EVERY).await;
            if control.send(Event::Renew).is_err() {
                return;
            }
        }
    }));
}
