//! The server's half of HTTP/1.1, as far as servers in tests need it.

use std::io::{BufRead, Read as _};

/// A request that was read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its fields: names in lower case, values without the space around them.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the next request of a connection; `None` at its end, also if that comes in the middle of a request or the bytes
    /// are no request. Bodies need a `Content-Length`.
    pub fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_ascii_whitespace();
        let mut request =
            Self { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Self::default() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            // Without the last line break this is the end of the connection.
            if line.trim().is_empty() && line.ends_with('\n') {
                break;
            }
            let (name, value) = line.trim().split_once(':')?;
            request.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = request.field("content-length").map_or(Some(0), |length| length.parse().ok())?;
        reader.take(length).read_to_end(&mut request.body).ok()?;
        (request.body.len() as u64 == length).then_some(request)
    }

    /// The value of the field with this name, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Method, target and fields as one text, one field a line.
    pub fn head(&self) -> String {
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\n"));
        format!("{} {}\n", self.method, self.target) + &fields.collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_the_other_and_half_a_one_not_at_all() {
        let mut bytes: &[u8] =
            b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\n\r\nPUT /c HTTP/1.1\r\n";
        let first = Request::read(&mut bytes).unwrap();
        assert_eq!(
            (first.method.as_str(), first.target.as_str(), first.body.as_slice()),
            ("POST", "/a?b=c", &b"hi"[..])
        );
        assert_eq!((first.field("host"), first.field("authorization")), (Some("x"), None));
        assert_eq!(first.head(), "POST /a?b=c\nhost: x\ncontent-length: 2\n");
        assert_eq!(Request::read(&mut bytes).unwrap().method, "GET");
        assert_eq!(Request::read(&mut bytes), None);
        assert_eq!(Request::read(&mut &b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nhi"[..]), None);
    }
}
