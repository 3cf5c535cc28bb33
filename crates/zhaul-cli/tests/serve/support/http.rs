//! Reading an answer off a byte stream, strictly: what a client of ours would trip over fails here.

use std::io::{self, ErrorKind, Read};

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The head as it came, with its empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Every value of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1);
        let fields = lines.filter_map(|line| line.split_once(": "));
        fields
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The value of a field that comes at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} comes twice:\n{}", self.head);
        values.first().copied()
    }

    /// The members of a list field, over all its lines, in lower case.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let members = self.all(name).into_iter().flat_map(|line| line.split(','));
        members
            .map(|member| member.trim().to_ascii_lowercase())
            .collect()
    }

    pub(crate) fn etag(&self) -> &str {
        self.field("ETag")
            .unwrap_or_else(|| panic!("no ETag:\n{}", self.head))
    }

    pub(crate) fn announced_length(&self) -> Option<u64> {
        self.field("Content-Length")
            .map(|value| value.parse().unwrap())
    }

    pub(crate) fn closes(&self) -> bool {
        self.list("Connection")
            .iter()
            .any(|option| option == "close")
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) -> &Self {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        assert_eq!(self.status, status, "{}{body}", self.head);
        self
    }

    #[track_caller]
    pub(crate) fn assert_body(&self, expected: &[u8]) -> &Self {
        assert_same(&self.body, expected, &self.head);
        self
    }

    /// The head without the fields that differ from second to second.
    pub(crate) fn lasting_head(&self) -> String {
        let lines = self.head.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with("Date: ")).collect()
    }
}

/// Compares without printing megabytes.
#[track_caller]
pub(crate) fn assert_same(got: &[u8], expected: &[u8], context: &str) {
    if got == expected {
        return;
    }
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        bytes[at..bytes.len().min(at + 32)]
            .escape_ascii()
            .to_string()
    };
    panic!(
        "{} bytes instead of {}, different from {at}: \"{}\" instead of \"{}\"\n{context}",
        got.len(),
        expected.len(),
        around(got),
        around(expected)
    );
}

/// Reads the head of an answer; what was received behind it stays in `buffer`.
pub(crate) fn read_head(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Response> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if receive(stream, buffer)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let head = String::from_utf8(head).expect("a head is ASCII");
    check_syntax(&head);
    let status = head[9..12].parse().unwrap();
    Ok(Response {
        status,
        head,
        body: Vec::new(),
    })
}

/// Reads an answer whole. One that ends early is an error of kind `UnexpectedEof` or a reset.
pub(crate) fn read_response(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    method: &str,
) -> io::Result<Response> {
    let mut response = read_head(stream, buffer)?;
    if method == "HEAD" || matches!(response.status, 100..200 | 204 | 304) {
        return Ok(response);
    }
    let length = response
        .announced_length()
        .expect("an answer has a Content-Length");
    let length = usize::try_from(length).unwrap();
    while buffer.len() < length {
        if receive(stream, buffer)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let rest = buffer.split_off(length);
    response.body = std::mem::replace(buffer, rest);
    Ok(response)
}

pub(crate) fn receive(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let had = buffer.len();
    buffer.resize(had + 64 * 1024, 0);
    let received = loop {
        match stream.read(&mut buffer[had..]) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            done => break done,
        }
    };
    buffer.truncate(had + *received.as_ref().unwrap_or(&0));
    received
}

fn check_syntax(head: &str) {
    let mut lines = head.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
    let status_line = lines.next().unwrap();
    assert!(status_line.starts_with("HTTP/1.1 "), "{head}");
    assert_eq!(status_line.as_bytes()[12], b' ', "{head}");
    for line in lines {
        let (name, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("{line:?} in {head}"));
        assert!(
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "{line:?}"
        );
        assert!(
            value.bytes().all(|b| (b' '..=b'~').contains(&b)),
            "{line:?}"
        );
        assert_eq!(value, value.trim(), "{line:?}");
    }
    // RFC 9112 §6.3, RFC 9110 §6.6.1
    let count = |name: &str| {
        let prefix = format!("{}:", name.to_ascii_lowercase());
        head.lines()
            .filter(|line| line.to_ascii_lowercase().starts_with(&prefix))
            .count()
    };
    assert!(count("Content-Length") <= 1, "{head}");
    assert_eq!(count("Transfer-Encoding"), 0, "{head}");
    assert!(count("Date") == 1 || count("Retry-After") == 1, "{head}");
}

/// Reads answers to GET until the connection ends.
pub(crate) fn receive_all_answers(mut client: super::Client) -> Vec<Response> {
    let mut answers = Vec::new();
    loop {
        match client.try_answer("GET") {
            Ok(answer) => answers.push(answer),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                return answers;
            }
            Err(e) => panic!("the connection does not end: {e}"),
        }
    }
}
