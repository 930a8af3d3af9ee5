//! What only the process itself knows and can do: its configuration, its files, its certificate.
//!
//! The platform behind the other surfaces knows nothing of files and signals; the binary does, and implements [`Operator`].

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use nave_env::BoxFuture;
use nave_hub::{ErrorCode, HubError};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::reply::{self, Reply};
use crate::service::ResponseBody;

/// The process, as the admin surface sees it.
pub trait Operator: Send + Sync + 'static {
    /// Members for the answer to `GET /admin/status`, beside those of the platform.
    fn status(&self) -> Map<String, Value>;

    /// The configuration in force: an array of `{"key":…,"value":…,"source":…,"from":…,"reloadable":…}`, without secrets.
    fn configuration(&self) -> Value;

    /// Takes up what changed in the configuration, in certificates and in functions: all of it or nothing.
    fn reload(&self) -> BoxFuture<Result<Value, OperatorError>>;

    /// A copy of everything that is kept, as a stream of its bytes. The copy is broken off when the receiver is dropped.
    fn backup(&self) -> Result<mpsc::Receiver<io::Result<Bytes>>, OperatorError>;
}

/// Why the process does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// What was asked for is not possible; nothing has changed. The text says what to do. Status 400.
    #[error("{0}")]
    Refused(String),
    /// The same is being done already. Status 409.
    #[error("{0}")]
    Busy(String),
    /// It failed. Status 500; the text goes to the log.
    #[error("{0}")]
    Failed(String),
}

impl From<OperatorError> for HubError {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Refused(message) => Self::new(ErrorCode::InvalidOperation, message),
            OperatorError::Busy(message) => Self::new(ErrorCode::GenericConflict, message),
            OperatorError::Failed(detail) => Self::internal(detail),
        }
    }
}

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Configuration,
    Reload,
    Backup,
}

/// Answers a request.
pub(crate) async fn answer(operator: Option<&dyn Operator>, operation: Operation) -> Result<Reply, HubError> {
    let operator = operator
        .ok_or_else(|| HubError::new(ErrorCode::FeatureNotSupported, "This process has no operator interface."))?;
    match operation {
        Operation::Configuration => Ok(reply::ok(&operator.configuration())),
        Operation::Reload => Ok(reply::ok(&operator.reload().await?)),
        Operation::Backup => {
            let chunks = operator.backup()?;
            let chunks =
                stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
            let mut reply = Response::new(ResponseBody::stream(chunks));
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            Ok(reply)
        }
    }
}
