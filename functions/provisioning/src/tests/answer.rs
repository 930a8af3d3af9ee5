//! What comes back from policies.

use crate::fixtures::*;
use crate::*;

const OTHER_TWIN: &str = r#"{"tags":{"from":"policy"}}"#;

#[test]
fn a_policys_twin_wins_over_the_enrollments_and_over_what_migrates() {
    let chosen = |hub| Choice { initial_twin_json: Some(OTHER_TWIN.into()), ..choice(hub) };
    for (current_hub, policy, hub, data) in [
        (None, MIGRATE, HUB1, DeviceData::Create),
        (Some(HUB1), RESET, HUB1, DeviceData::Reset),
        (Some(HUB1), RESET, HUB2, DeviceData::Reset),
        (Some(HUB1), MIGRATE, HUB1, DeviceData::Keep),
        (
            Some(HUB1),
            MIGRATE,
            HUB2,
            DeviceData::Migrate(Migration { source: address(HUB1, "dev-1"), initial_twin_wins: true }),
        ),
    ] {
        let request = custom(|request, enrollment| {
            request.current = current_hub.map(|_| current());
            enrollment.reprovision = Some(policy);
        });
        let assignment = assigned(&request, chosen(hub));
        assert_eq!(assignment.data, data);
        assert_eq!(assignment.initial_twin_json.as_deref(), Some(OTHER_TWIN));
    }
}

#[test]
fn a_policy_may_choose_the_device_id_and_give_the_device_a_payload() {
    for kind in [EnrollmentKind::Individual, EnrollmentKind::Group] {
        let request = custom(|_, enrollment| enrollment.kind = kind);
        let mut choice = choice(HUB2);
        choice.device_id = Some("Line-3".into());
        choice.payload_json = Some("{\"welcome\":true}".into());
        let assignment = assigned(&request, choice);
        assert_eq!(assignment.device, address(HUB2, "Line-3"));
        assert_eq!(assignment.payload_json.as_deref(), Some("{\"welcome\":true}"));
    }
}

#[test]
fn what_a_custom_policy_returns_is_checked() {
    let base = || choice(HUB1);
    for (choice, code, hint) in [
        (choice(""), 400_208, "names no hub"),
        (choice("elsewhere.example"), 400_207, "elsewhere.example"),
        (choice(OFF), 400_207, OFF),
        (Choice { device_id: Some("a b".into()), ..base() }, 400_207, "device id"),
        (Choice { device_id: Some(String::new()), ..base() }, 400_207, "device id"),
        (Choice { initial_twin_json: Some("{".into()), ..base() }, 400_207, "initial twin"),
        (Choice { initial_twin_json: Some(r#"{"tags":{"a.b":1}}"#.into()), ..base() }, 400_207, "initial twin"),
        (Choice { payload_json: Some("{\"a\":".into()), ..base() }, 400_207, "payload"),
        (Choice { payload_json: Some(" ".repeat(65_537)), ..base() }, 400_207, "payload"),
    ] {
        let (got, message, log) = failed(complete(&custom(|_, _| ()), Outcome::Assigned(choice)));
        assert_eq!(got, code, "{log}");
        assert!(log.contains(hint), "{log}");
        assert!(message.starts_with("Custom allocation") && !message.contains(OFF), "{message}");
    }
}

#[test]
fn a_built_in_policy_that_misbehaves_is_our_fault() {
    let outcome = Outcome::Assigned(choice("elsewhere.example"));
    assert_eq!(failed(complete(&request(|_, _| ()), outcome)).0, 500_001);
}

#[test]
fn a_custom_refusal_reaches_the_device_and_a_built_in_one_the_log() {
    let outcome = || Outcome::Refused("not in this region".into());
    let (code, message, _) = failed(complete(&custom(|_, _| ()), outcome()));
    assert_eq!((code, message.as_str()), (400_207, "not in this region"));
    let (code, message, log) = failed(complete(&request(|_, _| ()), outcome()));
    assert_eq!(code, 400_208);
    assert!(!message.contains("region") && log.contains("region"), "{message} / {log}");
    let (_, message, _) = failed(complete(&custom(|_, _| ()), Outcome::Refused(String::new())));
    assert_eq!(message, "Custom allocation refused the device.");
}

#[test]
fn a_wait_is_bounded() {
    for (asked, told) in [(0, 1), (5, 5), (3_600, 3_600), (u32::MAX, 3_600)] {
        assert_eq!(complete(&custom(|_, _| ()), Outcome::RetryAfter(asked)), Decision::RetryAfter(told));
    }
}

#[test]
fn every_way_not_to_answer() {
    for (cause, code, message) in [
        (FailureCause::Status(400), 400_207, "Custom allocation failed with status code: 400"),
        (FailureCause::Status(500), 400_207, "Custom allocation failed with status code: 500"),
        (FailureCause::Status(401), 400_209, "Custom allocation failed with status code: 401"),
        (FailureCause::Status(403), 400_209, "Custom allocation failed with status code: 403"),
        (FailureCause::BadAnswer, 400_207, "Custom allocation failed: its answer is not valid."),
        (FailureCause::TimedOut, 400_207, "Custom allocation failed: it did not answer in time."),
        (FailureCause::Unavailable, 400_207, "Custom allocation failed: it cannot be reached."),
        (FailureCause::UnknownPolicy, 400_207, "Custom allocation failed: there is no such policy."),
    ] {
        let outcome = || Outcome::Failed(AllocationFailure { cause, log: "policy p@3: secret".into() });
        let custom = failed(complete(&custom(|_, _| ()), outcome()));
        assert_eq!(custom, (code, message.to_owned(), "policy p@3: secret".to_owned()));
        let builtin = failed(complete(&request(|_, _| ()), outcome()));
        assert_eq!(builtin, (500_001, "Allocation failed.".to_owned(), "policy p@3: secret".to_owned()));
    }
}
