//! Renews the server's certificate while the hub runs, for hubs that run for a year.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nave_env::SharedEnv;
use nave_net::tls::Certificates;

use super::certificates;

/// How often the certificate's age is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(12 * 3600);

/// Looks after the certificate in `dir` from now on. Connections that exist keep the one they have.
pub(super) fn start(env: &SharedEnv, served: &Arc<Certificates>, dir: PathBuf, names: Vec<String>) {
    let (env, served) = (Arc::clone(env), Arc::downgrade(served));
    let again = Arc::clone(&env);
    env.spawn(Box::pin(async move {
        loop {
            again.sleep(LOOK_EVERY).await;
            let Some(served) = served.upgrade() else { return };
            match certificates::development(&dir, &names, &*again) {
                Ok(current) => served.replace(current.identity, []),
                Err(error) => tracing::error!(%error, "the server certificate could not be renewed"),
            }
        }
    }));
}
