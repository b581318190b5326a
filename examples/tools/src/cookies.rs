//! Cookies of a voter, stored as a browser does: a new value of a name replaces the previous one.

use http::{HeaderMap, HeaderValue, header::SET_COOKIE};

/// Cookies of one voter.
///
/// Attributes are ignored: all targets serve one site, all paths have one prefix, and a voter is done before any cookie
/// expires.
#[derive(Debug, Clone, Default)]
pub struct Cookies {
    /// Cookies as `name=value`.
    pairs: Vec<Vec<u8>>,
}

impl Cookies {
    /// Stores the cookies that a response sets, and returns whether it set any.
    pub fn take(&mut self, headers: &HeaderMap) -> bool {
        let mut any = false;
        for value in headers.get_all(SET_COOKIE) {
            let pair = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            let Some(equals) = pair.iter().position(|b| *b == b'=') else { continue };
            any = true;
            match self.pairs.iter_mut().find(|old| old.starts_with(&pair[..=equals])) {
                Some(old) => {
                    old.clear();
                    old.extend_from_slice(pair);
                }
                None => self.pairs.push(pair.to_vec()),
            }
        }
        any
    }

    /// Returns the value of the `Cookie` header for the next request, or `None` without cookies.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        // These never fail: the bytes came from a header.
        match &self.pairs[..] {
            [] => None,
            [one] => HeaderValue::from_bytes(one).ok(),
            many => HeaderValue::from_bytes(&many.join(&b"; "[..])).ok(),
        }
    }

    /// Returns whether there are no cookies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Removes all cookies.
    pub fn clear(&mut self) {
        self.pairs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(responses: &[&[&'static str]]) -> Option<String> {
        let mut cookies = Cookies::default();
        for set in responses {
            let mut headers = HeaderMap::new();
            set.iter().for_each(|value| {
                headers.append(SET_COOKIE, HeaderValue::from_static(value));
            });
            cookies.take(&headers);
        }
        cookies.header().map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_name_and_value_are_sent() {
        assert_eq!(after(&[&["v=a=b; Path=/; HttpOnly; Max-Age=9"]]).as_deref(), Some("v=a=b"));
        assert_eq!(after(&[]), None);
    }

    #[test]
    fn a_new_value_replaces_the_previous_one_of_the_same_name() {
        assert_eq!(after(&[&["v=1", "w=2"], &["v=3; Path=/"]]).as_deref(), Some("v=3; w=2"));
        assert_eq!(after(&[&["v=1"], &["vv=2"]]).as_deref(), Some("v=1; vv=2"));
    }
}
