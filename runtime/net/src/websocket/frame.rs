//! The frames of RFC 6455, as a server reads and writes them.
//!
//! The frames carry a byte stream (device-mqtt.md §1), so nothing has to be put together here: what a frame holds is
//! unmasked and handed on as it arrives, and a decoder keeps a header at most, or the payload of a control frame. That is
//! why neither a long frame nor a message in endless fragments costs memory; both have bounds all the same.

use crate::limits::{WEBSOCKET_FRAGMENTS, WEBSOCKET_MESSAGE_BYTES};

/// Longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES: usize = 125;

/// Bytes of a header at most: two, the length in eight, the mask in four (RFC 6455 §5.2).
const HEADER_BYTES: usize = 14;

/// What a frame is for (RFC 6455 §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    const fn parse(nibble: u8) -> Option<Self> {
        Some(match nibble {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Why a connection ends, as the other side learns it (RFC 6455 §7.4.1, and 1013 of its registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum CloseCode {
    Normal = 1000,
    GoingAway = 1001,
    ProtocolError = 1002,
    Unsupported = 1003,
    Policy = 1008,
    TooBig = 1009,
    Internal = 1011,
    TryAgainLater = 1013,
}

/// What the other side did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Bytes of the stream; never empty.
    Data(&'a [u8]),
    /// It asks for a pong with the same payload.
    Ping(&'a [u8]),
    /// It ends the connection; whatever follows is to be ignored.
    Close,
}

/// A rule that the other side broke. The text is for the log, the code for the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) code: CloseCode,
}

const fn broken(rule: &'static str) -> Violation {
    Violation { rule, code: CloseCode::ProtocolError }
}

/// Reads what a client sends, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    /// The message whose fragments are coming.
    message: Option<Message>,
}

#[derive(Debug)]
enum State {
    /// So many bytes of a header are there.
    Header([u8; HEADER_BYTES], usize),
    /// So many bytes of data are still to come; the mask begins with the one for the next byte.
    Data { left: u64, mask: [u8; 4] },
    /// A control frame is being collected.
    Control { opcode: Opcode, length: usize, mask: [u8; 4], payload: Vec<u8> },
    /// Closed, or broken: nothing is read any more.
    Over,
}

impl Default for State {
    fn default() -> Self {
        Self::Header([0; HEADER_BYTES], 0)
    }
}

#[derive(Clone, Copy, Debug)]
struct Message {
    bytes: u64,
    fragments: u32,
    /// The last frame of it has begun.
    finished: bool,
}

impl Decoder {
    /// Decodes all of `input`. `room` is working space whose content does not matter.
    ///
    /// After an error, or [`Event::Close`], the rest and everything later is ignored.
    pub(crate) fn decode(
        &mut self,
        mut input: &[u8],
        room: &mut Vec<u8>,
        mut sink: impl FnMut(Event<'_>),
    ) -> Result<(), Violation> {
        while !input.is_empty() {
            match self.step(input, room, &mut sink) {
                Ok(used) => input = input.get(used..).unwrap_or_default(),
                Err(violation) => {
                    self.state = State::Over;
                    return Err(violation);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, input: &[u8], room: &mut Vec<u8>, sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Violation> {
        match &mut self.state {
            State::Header(bytes, have) => {
                let missing = header_length(bytes, *have) - *have;
                let (arrived, free) = (input.get(..missing).unwrap_or(input), bytes.get_mut(*have..));
                for (to, from) in free.unwrap_or_default().iter_mut().zip(arrived) {
                    *to = *from;
                }
                *have += arrived.len();
                let (bytes, have) = (*bytes, *have);
                if have == header_length(&bytes, have) {
                    self.begin(&bytes, sink)?;
                }
                Ok(arrived.len())
            }
            State::Data { left, mask } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let arrived = input.get(..most).unwrap_or(input);
                room.clear();
                room.extend_from_slice(arrived);
                unmask(room, mask);
                *left -= arrived.len() as u64;
                if *left == 0 {
                    self.end_of_frame();
                }
                sink(Event::Data(room));
                Ok(arrived.len())
            }
            State::Control { opcode, length, mask, payload } => {
                let missing = *length - payload.len();
                let arrived = input.get(..missing).unwrap_or(input);
                payload.extend_from_slice(arrived);
                if payload.len() == *length {
                    let (opcode, mut mask, mut payload) = (*opcode, *mask, std::mem::take(payload));
                    unmask(&mut payload, &mut mask);
                    self.control(opcode, &payload, sink)?;
                }
                Ok(arrived.len())
            }
            State::Over => Ok(input.len()),
        }
    }

    /// A header is complete.
    fn begin(&mut self, header: &[u8; HEADER_BYTES], sink: &mut impl FnMut(Event<'_>)) -> Result<(), Violation> {
        let [first, second, rest @ ..] = header;
        let (finished, short) = (first & 0x80 != 0, second & 0x7F);
        if first & 0x70 != 0 {
            return Err(broken("a reserved bit without an extension"));
        }
        let opcode = Opcode::parse(first & 0x0F).ok_or(broken("an unknown opcode"))?;
        if second & 0x80 == 0 {
            return Err(broken("a frame without a mask"));
        }
        let (length, mask) = match (short, rest) {
            (126, [a, b, mask @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), mask.first_chunk()),
            (127, rest) => {
                let length = rest.first_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
                (length, rest.last_chunk())
            }
            (short, rest) => (u64::from(short), rest.first_chunk()),
        };
        let mask: [u8; 4] = *mask.ok_or(broken("a header without a mask"))?;
        let least = match short {
            126 => 126,
            127 => 1 << 16,
            _ => 0,
        };
        if length < least || length > i64::MAX as u64 {
            return Err(broken("a length that is not written in its shortest form"));
        }
        if opcode.is_control() {
            if !finished || short as usize > CONTROL_BYTES {
                return Err(broken("a control frame in fragments, or longer than 125 bytes"));
            }
            if length == 0 {
                return self.control(opcode, &[], sink);
            }
            self.state = State::Control { opcode, length: short.into(), mask, payload: Vec::new() };
            return Ok(());
        }
        let message = match (opcode, self.message) {
            (Opcode::Text, _) => return Err(Violation { rule: "a text frame", code: CloseCode::Unsupported }),
            (Opcode::Continuation, None) => return Err(broken("a continuation of nothing")),
            (Opcode::Continuation, Some(message)) => {
                Message { bytes: message.bytes.saturating_add(length), fragments: message.fragments + 1, finished }
            }
            (_, Some(_)) => return Err(broken("a new message within another")),
            (_, None) => Message { bytes: length, fragments: 1, finished },
        };
        if message.bytes > WEBSOCKET_MESSAGE_BYTES {
            return Err(Violation { rule: "a message of more than 1 MiB", code: CloseCode::TooBig });
        }
        if message.fragments > WEBSOCKET_FRAGMENTS {
            return Err(Violation { rule: "a message in too many fragments", code: CloseCode::Policy });
        }
        self.message = Some(message);
        if length == 0 {
            self.end_of_frame();
        } else {
            self.state = State::Data { left: length, mask };
        }
        Ok(())
    }

    fn end_of_frame(&mut self) {
        self.message = self.message.filter(|message| !message.finished);
        self.state = State::default();
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), Violation> {
        self.state = State::default();
        match opcode {
            Opcode::Ping => sink(Event::Ping(payload)),
            Opcode::Close => {
                if !closes_in_order(payload) {
                    return Err(broken("a close frame with a code that nobody may send"));
                }
                self.state = State::Over;
                sink(Event::Close);
            }
            _ => {}
        }
        Ok(())
    }
}

/// How long the header is, of which the first `have` bytes are there; a lower bound until the length is known.
const fn header_length(bytes: &[u8; HEADER_BYTES], have: usize) -> usize {
    if have < 2 {
        return 2;
    }
    let masked = if bytes[1] & 0x80 == 0 { 0 } else { 4 };
    masked
        + match bytes[1] & 0x7F {
            126 => 4,
            127 => 10,
            _ => 2,
        }
}

/// Whether a close frame may have this payload (RFC 6455 §5.5.1, §7.4). Its reason is for people and not looked at.
const fn closes_in_order(payload: &[u8]) -> bool {
    match payload {
        [] => true,
        [a, b, ..] => {
            matches!(u16::from_be_bytes([*a, *b]), 1000..=1003 | 1007..=1014 | 3000..=4999)
        }
        [_] => false,
    }
}

/// Removes the mask, which afterwards begins with the byte for what follows (RFC 6455 §5.3).
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(*mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter()) {
        *byte ^= mask;
    }
    mask.rotate_left(rest.len());
}

/// Appends a whole frame, without a mask, as servers send it.
pub(crate) fn encode(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode as u8);
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a close frame.
pub(crate) fn encode_close(code: CloseCode, out: &mut Vec<u8>) {
    encode(Opcode::Close, &(code as u16).to_be_bytes(), out);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What a client sends.
    fn frame(finished: bool, opcode: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![u8::from(finished) << 7 | opcode];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length @ 126..=0xFFFF => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        bytes
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        data: Vec<u8>,
        pings: Vec<Vec<u8>>,
        closed: bool,
        violation: Option<Violation>,
    }

    fn see(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Seen {
        let (mut decoder, mut seen, mut room) = (Decoder::default(), Seen::default(), Vec::new());
        for piece in pieces {
            let result = decoder.decode(piece.as_ref(), &mut room, |event| match event {
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    seen.data.extend_from_slice(bytes);
                }
                Event::Ping(payload) => seen.pings.push(payload.to_vec()),
                Event::Close => seen.closed = true,
            });
            seen.violation = seen.violation.or(result.err());
        }
        seen
    }

    fn code(bytes: &[u8]) -> Option<CloseCode> {
        see([bytes]).violation.map(|violation| violation.code)
    }

    const MASK: [u8; 4] = [1, 2, 3, 4];

    #[test]
    fn refuses_what_the_standard_refuses() {
        use CloseCode as C;
        let unmasked = [0x82, 1, 7];
        assert_eq!(code(&unmasked), Some(C::ProtocolError));
        assert_eq!(code(&frame(true, 1, MASK, b"text")), Some(C::Unsupported));
        assert_eq!(code(&frame(true, 0, MASK, b"a")), Some(C::ProtocolError));
        assert_eq!(code(&[frame(false, 2, MASK, b"a"), frame(true, 2, MASK, b"b")].concat()), Some(C::ProtocolError));
        assert_eq!(code(&frame(true, 3, MASK, b"")), Some(C::ProtocolError));
        assert_eq!(code(&frame(true, 0x42, MASK, b"a")), Some(C::ProtocolError));
        assert_eq!(code(&frame(false, 9, MASK, b"a")), Some(C::ProtocolError));
        assert_eq!(code(&frame(true, 9, MASK, &[0; 126])), Some(C::ProtocolError));
        assert_eq!(code(&frame(true, 8, MASK, &[3])), Some(C::ProtocolError));
        assert_eq!(code(&frame(true, 8, MASK, &1005_u16.to_be_bytes())), Some(C::ProtocolError));
        let long_form = [&[0x82, 0x80 | 126, 0, 1][..], &MASK, b"a"].concat();
        assert_eq!(code(&long_form), Some(C::ProtocolError));
        let longer_form = [&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF][..], &MASK].concat();
        assert_eq!(code(&longer_form), Some(C::ProtocolError));
        let negative = [&[0x82, 0x80 | 127][..], &[0xFF; 8], &MASK].concat();
        assert_eq!(code(&negative), Some(C::ProtocolError));
    }

    #[test]
    fn bounds_a_message_and_its_fragments() {
        let announced = |length: u64| [&[0x82, 0x80 | 127][..], &length.to_be_bytes(), &MASK].concat();
        assert_eq!(code(&announced(WEBSOCKET_MESSAGE_BYTES)), None);
        assert_eq!(code(&announced(WEBSOCKET_MESSAGE_BYTES + 1)), Some(CloseCode::TooBig));
        let begin = frame(false, 2, MASK, b"a");
        let empty = frame(false, 0, MASK, b"");
        let fragments = |count: u32| [begin.clone(), empty.repeat(count as usize - 1)].concat();
        assert_eq!(code(&fragments(WEBSOCKET_FRAGMENTS)), None);
        assert_eq!(code(&fragments(WEBSOCKET_FRAGMENTS + 1)), Some(CloseCode::Policy));
        let halves: Vec<u8> = [2, 0, 0].iter().flat_map(|op| frame(false, *op, MASK, &[0; 500_000])).collect();
        assert_eq!(code(&halves), Some(CloseCode::TooBig));
    }

    #[test]
    fn keeps_control_frames_apart_from_the_message_around_them() {
        let bytes = [
            frame(false, 2, MASK, b"one "),
            frame(true, 9, MASK, b"there?"),
            frame(true, 10, MASK, b"unasked"),
            frame(true, 0, [9; 4], b"two"),
            frame(true, 9, MASK, b""),
            frame(true, 8, MASK, b"\x03\xe8bye"),
            frame(true, 1, MASK, b"ignored"),
        ];
        let seen = see([bytes.concat()]);
        assert_eq!(seen.data, b"one two");
        assert_eq!(seen.pings, [b"there?".to_vec(), Vec::new()]);
        assert!(seen.closed && seen.violation.is_none());
    }

    #[test]
    fn holds_nothing_between_frames() {
        let mut decoder = Decoder::default();
        decoder.decode(&frame(true, 9, MASK, &[7; 125]), &mut Vec::new(), |_| {}).expect("a ping");
        assert!(matches!(decoder.state, State::Header(_, 0)) && decoder.message.is_none());
        assert!(size_of::<Decoder>() <= 72, "{}", size_of::<Decoder>());
    }

    fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        for cut in cuts {
            let (piece, other) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece.to_vec());
            rest = other;
        }
        pieces.push(rest.to_vec());
        pieces
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_mean_the_same(
            messages in vec(vec(vec(any::<u8>(), 0..300), 1..4), 0..5),
            pings in vec(vec(any::<u8>(), 0..126), 0..3),
            mask: [u8; 4],
            cuts in vec(0_usize..200, 0..40),
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                for (index, fragment) in message.iter().enumerate() {
                    let opcode = if index == 0 { 2 } else { 0 };
                    bytes.extend(frame(index + 1 == message.len(), opcode, mask, fragment));
                }
            }
            for ping in &pings {
                bytes.extend(frame(true, 9, mask, ping));
            }
            let seen = see(cut(&bytes, &cuts));
            prop_assert_eq!(&seen.data, &messages.concat().concat());
            prop_assert_eq!(&seen.pings, &pings);
            prop_assert_eq!(seen.violation, None);
        }

        #[test]
        fn any_bytes_in_any_pieces_give_the_same_end(bytes in vec(any::<u8>(), 0..600), cuts in vec(0_usize..50, 0..40)) {
            prop_assert_eq!(see([&bytes]), see(cut(&bytes, &cuts)));
        }

        #[test]
        fn likely_headers_in_any_pieces_give_the_same_end(
            frames in vec((prop_oneof![Just(2_u8), Just(0), Just(9), Just(8), Just(0x82), Just(0x80), Just(0x89)],
                vec(any::<u8>(), 0..130)), 0..8),
            cuts in vec(0_usize..50, 0..40),
        ) {
            let mut bytes = Vec::new();
            for (first, payload) in &frames {
                let whole = frame(false, 0, MASK, payload);
                bytes.push(*first);
                bytes.extend_from_slice(&whole[1..]);
            }
            prop_assert_eq!(see([&bytes]), see(cut(&bytes, &cuts)));
        }

        #[test]
        fn what_is_encoded_reads_back(payload in vec(any::<u8>(), 0..70_000)) {
            let mut bytes = Vec::new();
            encode(Opcode::Binary, &payload, &mut bytes);
            // As a client would: the same header with a mask of zeros.
            let header = match payload.len() { 0..=125 => 2, 126..=0xFFFF => 4, _ => 10 };
            bytes[1] |= 0x80;
            let masked = [&bytes[..header], &[0; 4], &bytes[header..]].concat();
            prop_assert_eq!(see([&masked]), Seen { data: payload, ..Seen::default() });
        }
    }
}
