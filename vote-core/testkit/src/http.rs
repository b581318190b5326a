//! An HTTP client for black-box tests: blocking, one request per connection, no dependencies, and no code in
//! common with the servers that it tests.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Time limit of each single read or write.
const PATIENCE: Duration = Duration::from_secs(20);

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Lower-case names and values of the headers, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body, with its transfer encoding decoded.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the first value of a header. The case of `name` does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns the body as text, with a replacement character for anything that is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a GET request for `path` to `address` (host:port) and returns the response. Panics if there is none.
pub fn http_get(address: impl ToSocketAddrs, path: &str) -> Response {
    match http(address, "GET", path, &[], b"") {
        Ok(response) => response,
        Err(error) => panic!("GET {path}: {error}"),
    }
}

/// Sends one request to `address` (host:port) on a connection of its own and reads the complete response. Adds the
/// headers Host, `Connection: close` and, except for a GET without a body, Content-Length unless `headers` has them.
///
/// # Errors
/// Fails if there is no connection, if no byte arrives for 20 s, if the connection is closed before the response is
/// complete, or if the response is not HTTP. The server may or may not have acted on the request.
pub fn http(
    address: impl ToSocketAddrs,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let host = stream.peer_addr()?.to_string();
    let length = body.len().to_string();
    let mut added = vec![("Host", host.as_str()), ("Connection", "close")];
    if method != "GET" || !body.is_empty() {
        added.push(("Content-Length", &length));
    }
    added.retain(|(name, _)| !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)));

    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in added.iter().chain(headers) {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    // A server may refuse a body unread and close: its response tells more than the failed write.
    let sent = stream.write_all(&bytes);
    read_response(&mut BufReader::new(stream), method).map_err(|error| sent.err().unwrap_or(error))
}

fn read_response(stream: &mut impl BufRead, method: &str) -> io::Result<Response> {
    let status = loop {
        let line = read_line(stream)?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        match status {
            // An interim response: the final one follows.
            Some(100..200) => while !read_line(stream)?.is_empty() {},
            Some(status) => break status,
            None => return Err(invalid(format!("invalid status line: {line:?}"))),
        }
    };
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(invalid(format!("invalid header: {line:?}")));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }

    let mut response = Response { status, headers, body: Vec::new() };
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(response);
    }
    if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        response.body = read_chunks(stream)?;
    } else if let Some(length) = response.header("content-length") {
        let length =
            length.parse::<usize>().map_err(|_| invalid(format!("invalid Content-Length: {length:?}")))?;
        response.body = vec![0; length];
        stream.read_exact(&mut response.body)?;
    } else {
        stream.read_to_end(&mut response.body)?;
    }
    Ok(response)
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size =
            u64::from_str_radix(digits, 16).map_err(|_| invalid(format!("invalid chunk size: {line:?}")))?;
        if size == 0 {
            // Tests don't need trailers.
            while !read_line(stream)?.is_empty() {}
            return Ok(body);
        }
        if stream.take(size).read_to_end(&mut body)? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_line(stream)?;
    }
}

/// Reads a line and returns it without its end.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(whole) => Ok(whole.trim_end_matches('\r').to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut answer: &[u8]) -> io::Result<Response> {
        read_response(&mut answer, "GET")
    }

    #[test]
    fn a_body_has_the_length_given_in_its_header() {
        let response =
            read(b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\nX-A: b\r\n\r\ncats and more").unwrap();

        assert_eq!((response.status, response.text().as_str()), (202, "cats"));
        assert_eq!(response.header("x-a"), Some("b"));
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        assert_eq!(read(b"HTTP/1.0 200 OK\r\n\r\ncats\r\n").unwrap().text(), "cats\r\n");
    }

    #[test]
    fn chunks_are_joined() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            4;x=y\r\ncats\r\nA\r\n and\r\ndogs\r\n0\r\nX: y\r\n\r\n";

        assert_eq!(read(answer).unwrap().text(), "cats and\r\ndogs");
    }

    #[test]
    fn an_interim_response_is_skipped() {
        assert_eq!(
            read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").unwrap().status,
            204
        );
    }

    #[test]
    fn a_truncated_response_is_an_error() {
        for truncated in [
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncats",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ncats",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ncats\r\n",
        ] {
            let error = read(truncated.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{truncated:?}");
        }
    }
}
