//! Failures as the protocol shows them, and what the log gets besides.

use std::fmt;

use nave_engine::CallError;
use nave_env::Env;
use nave_model::RecordError;
use nave_store::{CommitError, StoreError};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The protocol's error codes: a number whose first three digits are the HTTP status, and a name.
        ///
        /// Names and numbers are those of the service SDKs' published enumerations.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// The six-digit number.
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// The symbolic name, as in the header `iothub-errorcode`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The code with this number.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// The request is malformed in no more specific way.
    GenericBadRequest = 400_000,
    /// `api-version` is missing or unknown.
    InvalidProtocolVersion = 400_001,
    /// `top` is out of range.
    DeviceInvalidResultCount = 400_002,
    /// The operation makes no sense in this state.
    InvalidOperation = 400_003,
    /// A body, query or parameter is wrong.
    ArgumentInvalid = 400_004,
    /// A required member is missing.
    ArgumentNull = 400_005,
    /// Text that should be formatted is not.
    IotHubFormatError = 400_006,
    /// The same device twice in one bulk operation.
    DeviceDefinedMultipleTimes = 400_011,
    /// Some items of a bulk operation failed.
    BulkRegistryOperationFailure = 400_013,
    /// The body did not arrive in time.
    RequestTimedOut = 400_024,
    /// More enrollments than there may be, or than one bulk operation takes (the number follows from the order of the
    /// published enumeration).
    TooManyEnrollments = 400_205,
    /// The same registration id twice in one bulk operation (the number follows as well).
    RegistrationIdDefinedMultipleTimes = 400_206,
    /// A custom allocation policy failed.
    CustomAllocationFailed = 400_207,
    /// There is no hub to assign the device to.
    CustomAllocationIotHubNotSpecified = 400_208,
    /// A custom allocation policy refused the provisioning service.
    CustomAllocationUnauthorizedAccess = 400_209,
    /// No hub of that name.
    IotHubNotFound = 401_001,
    /// The token is good but lacks a right, or names something that must not be revealed.
    IotHubUnauthorizedAccess = 401_002,
    /// No token, a bad one, or an expired one.
    IotHubUnauthorized = 401_003,
    /// The daily quota is used up.
    IotHubQuotaExceeded = 403_002,
    /// The device's queue of cloud-to-device messages is full.
    DeviceMaximumQueueDepthExceeded = 403_004,
    /// The message expires in the past, or too late.
    InvalidMessageExpiryTime = 403_009,
    /// The device is disabled.
    DeviceDisabled = 403_012,
    /// As many method calls of the device are under way as the hub allows.
    InflightMethodExceeded = 403_800,
    /// No such device (or its twin).
    DeviceNotFound = 404_001,
    /// No such module.
    ModuleNotFound = 404_010,
    /// The protocol has this, this release does not (the number follows from the order of the published enumeration).
    FeatureNotSupported = 404_012,
    /// The device is not connected, or not subscribed to methods.
    DeviceNotOnline = 404_103,
    /// The device's connection ended during the call.
    DeviceConnectionClosedRemotely = 404_104,
    /// No such enrollment.
    EnrollmentNotFound = 404_201,
    /// No such registration.
    DeviceRegistrationNotFound = 404_202,
    /// No such registration operation.
    AsyncOperationNotFound = 404_203,
    /// No such enrollment group.
    EnrollmentGroupNotFound = 404_204,
    /// Nothing at that path.
    GenericNotFound = 404_000,
    /// The path exists, the method does not.
    GenericMethodNotAllowed = 405_000,
    /// The device exists already.
    DeviceAlreadyExists = 409_001,
    /// The enrollment exists already.
    EnrollmentConflict = 409_201,
    /// The enrollment group exists already.
    EnrollmentGroupConflict = 409_202,
    /// Two writers met; read again and repeat.
    RegistrationStatusConflict = 409_203,
    /// Something of that name exists already.
    GenericConflict = 409_000,
    /// The module exists already.
    ModuleAlreadyExistsOnDevice = 409_301,
    /// The entity tag does not match, or is missing where one is required.
    PreconditionFailed = 412_001,
    /// The lock on a cloud-to-device message ran out, or never was.
    DeviceMessageLockLost = 412_002,
    /// The message, or the request, is too large.
    MessageTooLarge = 413_001,
    /// Too many devices in one call or one hub.
    TooManyDevices = 413_002,
    /// A device has as many modules as it may have.
    TooManyModulesOnDevice = 413_003,
    /// The body is of a type that this path does not take.
    GenericUnsupportedMediaType = 415_000,
    /// Too many requests.
    ThrottlingException = 429_001,
    /// The hub is busy; repeat the request later.
    ThrottlingBacklogTimeout = 429_003,
    /// The hub failed.
    ServerError = 500_001,
    /// The device answered, but not in a form that the service can pass on.
    BadDeviceResponse = 502_000,
    /// The hub cannot serve now: it stops, or its disk is full.
    ServiceUnavailable = 503_001,
    /// The device did not answer in time.
    GatewayTimeout = 504_101,
}

impl ErrorCode {
    /// The HTTP status: the number's first three digits.
    pub const fn status(self) -> u16 {
        (self.number() / 1_000) as u16
    }
}

/// A failed request: what the caller is told, and separately what the log is told.
#[derive(Clone, Debug)]
pub struct HubError {
    /// The code.
    pub code: ErrorCode,
    /// The text for the caller. It names no secret and nothing that the caller may not know.
    pub message: String,
    /// The error's `info` object as JSON text, where the protocol defines one.
    pub info: Option<String>,
    /// What only the operator should read.
    pub detail: Option<String>,
}

impl HubError {
    /// A failure with its text for the caller.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), info: None, detail: None }
    }

    /// The same failure with `detail` for the log.
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// A failure of ours: the caller learns only that, the log learns why.
    pub fn internal(detail: impl fmt::Display) -> Self {
        Self::new(ErrorCode::ServerError, "The request failed inside the hub; the hub's log says why.")
            .with_detail(detail)
    }

    /// The device is unknown.
    pub fn device_not_found(id: &str) -> Self {
        Self::new(ErrorCode::DeviceNotFound, format!("The specified device does not exist: {id}."))
    }

    /// The token or certificate does not let the caller in.
    pub fn unauthorized() -> Self {
        Self::new(ErrorCode::IotHubUnauthorized, "Unauthorized")
    }

    /// The entity tag does not match.
    pub fn precondition_failed() -> Self {
        Self::new(
            ErrorCode::PreconditionFailed,
            "The entity tag does not match the current one: read again and repeat.",
        )
    }

    /// A tracking id for one failure, to be found again in the log: 32 digits and the time.
    pub fn tracking_id(env: &dyn Env) -> String {
        let mut number = [0; 16];
        env.fill_random(&mut number);
        format!("{:032X}-G:0-TimeStamp:{}", u128::from_be_bytes(number), env.now().tracking())
    }

    /// The error object of newer gateways, of answers over MQTT and of the provisioning service: `errorCode`,
    /// `trackingId`, `message`, `info` if there is any, `timestampUtc`.
    pub fn document(&self, env: &dyn Env) -> serde_json::Value {
        let mut document = serde_json::json!({
            "errorCode": self.code.number(),
            "trackingId": Self::tracking_id(env),
            "message": self.message,
        });
        if let Some(members) = document.as_object_mut() {
            if let Some(info) = self.info.as_deref().and_then(|info| serde_json::from_str(info).ok()) {
                members.insert("info".to_owned(), info);
            }
            members.insert("timestampUtc".to_owned(), env.now().iso().into());
        }
        document
    }

    /// Whether the failure is ours rather than the caller's.
    pub const fn is_internal(&self) -> bool {
        self.code.status() >= 500 && !matches!(self.code, ErrorCode::GatewayTimeout | ErrorCode::BadDeviceResponse)
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.code.number(), self.code.name(), self.message)?;
        match &self.detail {
            Some(detail) => write!(formatter, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for HubError {}

impl From<RecordError> for HubError {
    fn from(error: RecordError) -> Self {
        Self::internal(error)
    }
}

impl From<StoreError> for HubError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

impl From<CommitError> for HubError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Full => Self::new(
                ErrorCode::ServiceUnavailable,
                "The hub's disk is full: nothing was changed. Repeat the request when there is space.",
            )
            .with_detail("the store's disk is full"),
            CommitError::Stopped => Self::new(ErrorCode::ServiceUnavailable, "The hub is stopping."),
            CommitError::Conflict { key, .. } => Self::new(
                ErrorCode::ThrottlingBacklogTimeout,
                "Too many concurrent changes of the same object: repeat the request.",
            )
            .with_detail(format_args!("conflict on {key}")),
            CommitError::Busy => Self::new(
                ErrorCode::ThrottlingBacklogTimeout,
                "The hub takes no more changes at the moment: repeat the request later.",
            ),
            other => Self::internal(other),
        }
    }
}

impl From<CallError> for HubError {
    fn from(error: CallError) -> Self {
        Self::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_numbers_head() {
        assert_eq!(ErrorCode::DeviceNotOnline.status(), 404);
        assert_eq!(ErrorCode::from_number(409_001), Some(ErrorCode::DeviceAlreadyExists));
        assert_eq!(ErrorCode::DeviceAlreadyExists.name(), "DeviceAlreadyExists");
    }

    /// The methods function names its errors by number; one that is not known here would be shown as a failure of the hub.
    #[test]
    fn every_error_of_methods_is_known() {
        use nave_function_methods::{Answered, DeviceAnswer, Plan, Presence, Timeouts, begin, complete};

        let large = format!(r#"{{"methodName":"m","payload":"{}"}}"#, "x".repeat(200_000));
        let calls = [
            ("nonsense", Presence::Online),
            ("{}", Presence::Online),
            (r#"{"methodName":"m","responseTimeoutInSeconds":0}"#, Presence::Online),
            (&large, Presence::Online),
            (r#"{"methodName":"m"}"#, Presence::UnknownDevice),
            (r#"{"methodName":"m"}"#, Presence::Disabled),
            (r#"{"methodName":"m"}"#, Presence::Offline),
            (r#"{"methodName":"m"}"#, Presence::Saturated),
        ];
        let begun = calls.into_iter().map(|(body, presence)| match begin(body, presence) {
            Plan::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        });
        let answers = [
            DeviceAnswer::Answered(Answered { status_text: "x".into(), payload: Vec::new() }),
            DeviceAnswer::NoAnswer,
            DeviceAnswer::Disconnected,
            DeviceAnswer::NeverConnected,
        ];
        let timeouts = Timeouts { connect_ms: 0, response_ms: 5_000 };
        let completed = answers.into_iter().map(|answer| complete(timeouts, &answer).unwrap_err());
        for refusal in begun.chain(completed) {
            let code = ErrorCode::from_number(refusal.error_code);
            let code = code.unwrap_or_else(|| panic!("{} {} is not known", refusal.error_code, refusal.error_name));
            assert_eq!((code.name(), code.status()), (refusal.error_name.as_str(), refusal.http_status));
        }
    }

    #[test]
    fn the_caller_does_not_read_the_detail() {
        let error = HubError::internal("/var/lib/nave: input/output error");
        assert!(!error.message.contains("/var"));
        assert!(error.to_string().contains("/var"));
    }
}
