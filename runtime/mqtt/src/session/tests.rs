use super::*;
use crate::packet::Login;

fn connect(keep_alive: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let login = Some(Login { username: "hub/dev", password: None });
    let packet = Connect { client_id: "dev", clean_session: false, keep_alive, will: None, login };
    encode::connect(&mut out, &packet).unwrap();
    out
}

fn publish(payload: &[u8], delivery: Delivery) -> Vec<u8> {
    let mut out = Vec::new();
    encode::publish(&mut out, "t", payload, delivery, false).unwrap();
    out
}

fn qos1(id: u16) -> Delivery {
    Delivery::AtLeastOnce { packet_id: PacketId::new(id).unwrap(), dup: false }
}

fn no_event(event: Event<'_>) -> Flow {
    panic!("{event:?}")
}

fn open(keep_alive: u16) -> ServerSession {
    let mut session = ServerSession::new(SessionLimits::default(), 1_000);
    let mut out = Vec::new();
    session.receive(&connect(keep_alive), 1_000, |_| Flow::Continue).unwrap();
    session.accept(false, 1_000, &mut out);
    session.resume(1_000, no_event).unwrap();
    assert_eq!(out, [0x20, 2, 0, 0]);
    assert!(session.is_open());
    session
}

#[test]
fn an_idle_session_is_small_and_holds_no_buffer() {
    assert!(size_of::<ServerSession>() <= 72, "{}", size_of::<ServerSession>());
    let mut session = open(60);
    assert_eq!(session.held.capacity(), 0);
    let bytes = publish(b"payload", qos1(1));
    let (first, second) = bytes.split_at(5);
    session.receive(first, 1_000, no_event).unwrap();
    assert_eq!(session.held, first);
    let mut events = 0;
    session
        .receive(second, 1_000, |_| {
            events += 1;
            Flow::Continue
        })
        .unwrap();
    assert_eq!((events, session.held.capacity()), (1, 0));
}

#[test]
fn what_was_held_comes_in_order_after_the_answer() {
    let mut session = ServerSession::new(SessionLimits::default(), 0);
    let bytes = [connect(60), publish(b"1", qos1(1)), publish(b"2", Delivery::AtMostOnce), vec![0xc0, 0]].concat();
    let (first, second) = bytes.split_at(bytes.len() - 4);
    session
        .receive(first, 0, |event| if matches!(event, Event::Connect(_)) { Flow::Continue } else { no_event(event) })
        .unwrap();
    session.resume(0, no_event).unwrap();
    session.receive(second, 0, no_event).unwrap();
    assert!(session.is_connecting() && session.deadline().is_none() && !session.has_pongs());
    let mut out = Vec::new();
    session.accept(true, 0, &mut out);
    let mut payloads = Vec::new();
    session
        .resume(0, |event| match event {
            Event::Publish { payload, ack, .. } => {
                payloads.push((payload.to_vec(), ack.map(PacketId::get)));
                Flow::Continue
            }
            event => no_event(event),
        })
        .unwrap();
    assert_eq!(payloads, [(b"1".to_vec(), Some(1)), (b"2".to_vec(), None)]);
    session.write_pongs(&mut out);
    session.write_pongs(&mut out);
    assert_eq!(out, [0x20, 2, 1, 0, 0xd0, 0]);
}

#[test]
fn a_refusal_is_the_last_word() {
    let mut session = ServerSession::new(SessionLimits::default(), 0);
    let bytes = [connect(60), publish(b"1", qos1(1))].concat();
    session.receive(&bytes, 0, |_| Flow::Continue).unwrap();
    let mut out = Vec::new();
    session.refuse(ConnectRefusal::NotAuthorized, &mut out);
    session.accept(false, 0, &mut out);
    session.resume(0, no_event).unwrap();
    session.receive(&bytes, 0, no_event).unwrap();
    assert_eq!(out, [0x20, 2, 0, 5]);
    assert!(session.is_closed() && !session.wants_input() && session.held.capacity() == 0);
}

#[test]
fn a_paused_session_holds_a_bounded_amount() {
    let mut session = open(60);
    let one = publish(&[b'x'; 1000], qos1(1));
    let mut delivered = 0;
    let pausing = |_: Event<'_>| {
        delivered += 1;
        Flow::Pause
    };
    session.receive(&one.repeat(3), 2_000, pausing).unwrap();
    assert_eq!(delivered, 1);
    assert!(session.wants_input() && session.deadline().is_none(), "the client is not to blame");
    let mut held = 2 * one.len();
    while session.wants_input() {
        session.receive(&one, 2_000, no_event).unwrap();
        held += one.len();
    }
    assert!(held >= HELD_BYTES_BEFORE_STALL as usize && held < HELD_BYTES_BEFORE_STALL as usize + one.len());
    // Two reads that were under way are still taken.
    session.receive(&vec![0xc0; 64 * 1024], 2_000, no_event).unwrap();
    session.receive(&vec![0xc0; 64 * 1024 - one.len()], 2_000, no_event).unwrap();
    assert_eq!(session.receive(&one.repeat(2), 2_000, no_event), Err(Violation::HeldOverflow));
    assert!(session.is_closed());
}

#[test]
fn a_paused_session_goes_on_where_it_stopped() {
    let mut session = open(60);
    let bytes: Vec<u8> = (0..10_u8).flat_map(|number| publish(&[number], Delivery::AtMostOnce)).collect();
    let mut seen = Vec::new();
    let mut record = |event: Event<'_>| {
        if let Event::Publish { payload, .. } = event {
            seen.extend_from_slice(payload);
        }
        Flow::Pause
    };
    session.receive(&bytes, 0, &mut record).unwrap();
    for _ in 0..9 {
        session.resume(0, &mut record).unwrap();
    }
    session.resume(0, no_event).unwrap();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(session.held.capacity(), 0);
}

#[test]
fn nothing_follows_a_stop_or_a_disconnect() {
    let two = publish(b"x", Delivery::AtMostOnce).repeat(2);
    let mut session = open(60);
    let mut events = 0;
    session
        .receive(&two, 0, |_| {
            events += 1;
            Flow::Stop
        })
        .unwrap();
    assert_eq!(events, 1);
    session.receive(&two, 0, no_event).unwrap();

    let mut session = open(60);
    let bytes = [&[0xe0, 0], &*two, &[0xff]].concat();
    session
        .receive(&bytes, 0, |event| if event == Event::Disconnect { Flow::Continue } else { no_event(event) })
        .unwrap();
    assert!(session.is_closed() && session.check_timeout(u64::MAX).is_none());
}

#[test]
fn violations_close_the_session_and_say_why() {
    let first = |bytes: &[u8]| {
        let mut session = ServerSession::new(SessionLimits::default(), 0);
        let violation = session.receive(bytes, 0, no_event).expect_err("must be refused");
        assert!(session.is_closed());
        violation
    };
    assert_eq!(first(&[0xc0, 0]), Violation::ConnectExpected(PacketKind::PingReq));
    assert_eq!(first(&publish(b"", Delivery::AtMostOnce)), Violation::ConnectExpected(PacketKind::Publish));
    assert!(matches!(first(b"GET / HTTP/1.1\r\n"), Violation::Malformed(_)));
    assert!(matches!(first(&[0x16, 3, 1, 2, 0]), Violation::Malformed(DecodeError::FixedHeaderFlags { .. })));
    let large = first(&[0x10, 0xff, 0xff, 0x7f]);
    assert!(matches!(large, Violation::Malformed(DecodeError::TooLarge { limit: 73_728, .. })), "{large}");
    assert_eq!(first(b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0").farewell(), [0x20, 2, 0, 2]);
    assert_eq!(first(b"\x10\x0c\0\x04MQTT\x03\x02\0\x3c\0\0").farewell(), [0x20, 2, 0, 1]);
    assert_eq!(first(b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\0\0\0").farewell(), [0x20, 3, 0, 0x84, 0]);
    assert_eq!(first(b"\x10\x0c\0\x04mqtt\x04\x02\0\x3c\0\0").farewell(), []);

    let then = |bytes: &[u8]| open(60).receive(bytes, 0, no_event).expect_err("must be refused");
    let qos2 = Delivery::ExactlyOnce { packet_id: PacketId::FIRST, dup: false };
    assert_eq!(then(&publish(b"", qos2)), Violation::ExactlyOnce);
    assert_eq!(then(&connect(60)), Violation::SecondConnect);
    for (first, kind) in [(0x50, PacketKind::PubRec), (0x62, PacketKind::PubRel), (0x70, PacketKind::PubComp)] {
        assert_eq!(then(&[first, 2, 0, 1]), Violation::Unexpected(kind));
    }
    assert_eq!(then(&[0xd0, 0]), Violation::Unexpected(PacketKind::PingResp));
    let large = then(&[0x30, 0xff, 0xff, 0x7f]);
    assert!(matches!(large, Violation::Malformed(DecodeError::TooLarge { .. })), "{large}");
}

#[test]
fn packets_before_a_violation_are_delivered() {
    let bytes = [publish(b"good", qos1(1)), vec![0xff]].concat();
    let mut events = 0;
    let result = open(60).receive(&bytes, 0, |_| {
        events += 1;
        Flow::Continue
    });
    assert_eq!((events, result), (1, Err(Violation::Malformed(DecodeError::ReservedType(15)))));
}

#[test]
fn silence_is_limited() {
    let mut fresh = ServerSession::new(SessionLimits::default(), 5_000);
    assert_eq!(fresh.deadline(), Some(65_000));
    fresh.receive(&connect(60)[..4], 64_000, no_event).unwrap();
    assert_eq!(fresh.deadline(), Some(65_000), "a beginning is not a CONNECT");
    assert_eq!(fresh.check_timeout(64_999), None);
    assert_eq!(fresh.check_timeout(65_000), Some(Violation::ConnectTimeout));

    for (keep_alive, limit) in
        [(60, 90_000), (1, 1_500), (1177, 1_765_500), (1178, 1_767_000), (0, 1_767_000), (u16::MAX, 1_767_000)]
    {
        assert_eq!(open(keep_alive).deadline(), Some(1_000 + limit), "{keep_alive}");
    }
    let mut session = open(60);
    session.receive(&[0xc0, 0], 50_000, no_event).unwrap();
    session.receive(&[], 60_000, no_event).unwrap();
    assert_eq!(session.deadline(), Some(140_000));
    session.pause();
    assert_eq!(session.check_timeout(u64::MAX), None);
    session.resume(200_000, no_event).unwrap();
    assert_eq!(session.check_timeout(289_999), None);
    assert_eq!(session.check_timeout(290_000), Some(Violation::KeepAliveTimeout));
    assert!(session.is_closed());
}

#[test]
fn server_packet_ids_stay_in_the_lower_half() {
    let mut session = open(60);
    let ids: Vec<u16> = (0..=u32::from(MAX_SERVER_PACKET_ID)).map(|_| session.next_packet_id().get()).collect();
    assert_eq!((ids[0], ids[32_766], ids[32_767]), (1, 0x7fff, 1));
    assert!(ids.iter().all(|id| (1..=0x7fff).contains(id)));
}

#[test]
fn every_ping_is_answered_once() {
    let mut session = open(60);
    session.receive(&[0xc0, 0].repeat(3), 0, no_event).unwrap();
    assert!(session.has_pongs());
    let mut out = Vec::new();
    session.write_pongs(&mut out);
    session.write_pongs(&mut out);
    assert_eq!((out, session.has_pongs()), ([0xd0, 0].repeat(3), false));
}
