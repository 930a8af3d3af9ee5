//! Work that ends whatever the client does.

use std::future::Future;

use nave_env::Env;
use nave_hub::{ErrorCode, HubError};
use tokio::sync::oneshot;

/// Runs `work` to its end, also if whoever waits here is dropped because the client went away.
///
/// Every change needs it: what follows a commit (ending the sessions of a device that was disabled, telling a device of its
/// new desired properties, the audit record) would else depend on the client's patience.
pub(crate) async fn to_its_end<T: Send + 'static>(
    env: &dyn Env,
    work: impl Future<Output = Result<T, HubError>> + Send + 'static,
) -> Result<T, HubError> {
    let (sender, receiver) = oneshot::channel();
    env.spawn(nave_trace::here(Box::pin(async move {
        // Nobody waits any more if this fails.
        let _ = sender.send(work.await);
    })));
    receiver.await.unwrap_or_else(|_| Err(HubError::new(ErrorCode::ServiceUnavailable, "The hub is stopping.")))
}

/// Runs `work` to its end if it `changes` something; else only as long as somebody waits for it.
pub(crate) async fn perhaps_to_its_end<T: Send + 'static>(
    env: &dyn Env,
    changes: bool,
    work: impl Future<Output = Result<T, HubError>> + Send + 'static,
) -> Result<T, HubError> {
    if changes { to_its_end(env, work).await } else { work.await }
}
