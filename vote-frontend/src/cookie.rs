//! The voter's cookie: a random id with a signature, so that a client can't make up voters by the million but has to
//! request a cookie for each.
//!
//! ```text
//! vote-voter=1.<key id>.<id and latest cast_at>.<MAC>
//! ```
//!
//! The fields are the format version; the id of the signing key (4 bytes, hex); 16 bytes of voter id and 8 bytes of the
//! latest `cast_at` (microseconds, big-endian, 0 for none), base64url; and the first 16 bytes of HMAC-SHA256 over
//! everything before them, base64url.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, header};
use sha2::Sha256;
use vote_core::{Secret, Timestamp};

use crate::identity::Identity;

/// How long a browser keeps the cookie: longer than any poll is open.
const MAX_AGE_SECONDS: u32 = 365 * 24 * 3600;
/// Bytes of the voter id and of the time of the latest vote.
const PAYLOAD: usize = 16 + 8;
/// Bytes of the truncated MAC.
const MAC: usize = 16;
/// Characters of a value and the equals sign before it, without the id of the key.
const VALUE: usize = "=1...".len() + PAYLOAD / 3 * 4 + (MAC * 4).div_ceil(3);

/// The keys for cookies: the first signs, all verify, so that keys can be rotated.
#[derive(Debug, Clone)]
pub struct CookieKeys {
    keys: Vec<Key>,
    name: &'static str,
    /// What follows the value when it is set.
    attributes: String,
}

#[derive(Clone)]
struct Key {
    id: String,
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    fn new(secret: &Secret) -> Option<Self> {
        let mac = Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?;
        let mut id = mac.clone();
        id.update(b"key id");
        Some(Self { id: hex::encode(&id.finalize().into_bytes()[..4]), mac })
    }

    fn sign(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(text.as_bytes());
        mac
    }
}

impl CookieKeys {
    /// Creates a set of keys; `None` if `secrets` is empty. With `tls`, browsers send the cookie over TLS only, and its
    /// prefix `__Host-` makes them reject one that a neighbouring site has set.
    #[must_use]
    pub fn new(secrets: &[Secret], tls: bool) -> Option<Self> {
        let keys: Vec<Key> = secrets.iter().filter_map(Key::new).collect();
        let name = if tls { "__Host-vote-voter" } else { "vote-voter" };
        let secure = if tls { "; Secure" } else { "" };
        let attributes = format!("; Path=/; Max-Age={MAX_AGE_SECONDS}; HttpOnly; SameSite=Lax{secure}");
        (!keys.is_empty()).then_some(Self { keys, name, attributes })
    }

    /// Returns the voter of a request; `None` without a cookie, or if it was altered or signed with another key.
    #[must_use]
    pub fn read(&self, headers: &HeaderMap) -> Option<Identity> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let values = cookies.flat_map(|value| value.split(';')).filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.name).then_some(value)
        });
        // A browser may send several cookies of this name, set for other paths; ours is the one that verifies.
        values.filter_map(|value| self.verify(value)).next()
    }

    fn verify(&self, value: &str) -> Option<Identity> {
        let (signed, mac) = value.rsplit_once('.')?;
        let (version, rest) = signed.split_once('.')?;
        let (key_id, payload) = rest.split_once('.')?;
        if version != "1" {
            return None;
        }
        let key = self.keys.iter().find(|key| key.id == key_id)?;
        key.sign(signed).verify_truncated_left(&decode::<MAC>(mac)?).ok()?;
        let payload = decode::<PAYLOAD>(payload)?;
        let (id, latest) = payload.split_first_chunk::<16>()?;
        let latest = i64::from_be_bytes(*latest.first_chunk()?);
        Some(Identity::known(*id, Timestamp::from_micros(latest).ok()))
    }

    /// Returns the value of the `Set-Cookie` header for a voter.
    #[must_use]
    pub fn set(&self, voter: &Identity) -> Option<HeaderValue> {
        let key = self.keys.first()?;
        let mut payload = [0; PAYLOAD];
        payload[..16].copy_from_slice(voter.id());
        payload[16..].copy_from_slice(&voter.latest().map_or(0, Timestamp::as_micros).to_be_bytes());
        let mut cookie =
            String::with_capacity(self.name.len() + key.id.len() + VALUE + self.attributes.len());
        cookie.extend([self.name, "="]);
        let signed = cookie.len();
        cookie.extend(["1.", &key.id, "."]);
        BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut cookie);
        let mac = key.sign(&cookie[signed..]).finalize().into_bytes();
        cookie.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(&mac[..MAC], &mut cookie);
        cookie.push_str(&self.attributes);
        HeaderValue::from_maybe_shared(Bytes::from(cookie)).ok()
    }
}

/// Decodes exactly `N` bytes.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Larger than any field, since the decoder asks for room for whole groups of three bytes.
    let mut bytes = [0; 32];
    let len = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    bytes[..len].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Secret {
        Secret::new(vec![byte; 32]).unwrap()
    }

    fn keys(bytes: &[u8]) -> CookieKeys {
        CookieKeys::new(&bytes.iter().map(|b| secret(*b)).collect::<Vec<_>>(), false).unwrap()
    }

    fn pair(keys: &CookieKeys, voter: &Identity) -> String {
        keys.set(voter).unwrap().to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn read(keys: &CookieKeys, cookie: &str) -> Option<Identity> {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        keys.read(&headers)
    }

    #[test]
    fn a_cookie_is_read_back_among_others() {
        let mut voter = Identity::random().unwrap();
        assert_eq!(read(&keys(&[1]), &format!("a=b; {}; c=d", pair(&keys(&[1]), &voter))), Some(voter));
        voter.cast(Timestamp::MIN);
        assert_eq!(read(&keys(&[1]), &pair(&keys(&[1]), &voter)), Some(voter));
    }

    #[test]
    fn any_changed_bit_invalidates_the_cookie() {
        let cookie = pair(&keys(&[1]), &Identity::random().unwrap());
        let start = cookie.find('=').unwrap() + 1;
        for i in start..cookie.len() {
            for bit in 0..7 {
                let mut changed = cookie.clone().into_bytes();
                changed[i] ^= 1 << bit;
                let Ok(changed) = HeaderValue::from_bytes(&changed) else { continue };
                let mut headers = HeaderMap::new();
                headers.insert(header::COOKIE, changed.clone());
                assert_eq!(keys(&[1]).read(&headers), None, "{changed:?}");
            }
        }
    }

    #[test]
    fn a_shortened_or_lengthened_field_invalidates_the_cookie() {
        let cookie = pair(&keys(&[1]), &Identity::random().unwrap());
        let start = cookie.find('=').unwrap() + 1;
        for at in start..cookie.len() {
            let shorter = format!("{}{}", &cookie[..at], &cookie[at + 1..]);
            assert_eq!(read(&keys(&[1]), &shorter), None, "{shorter}");
            for more in [1, 2, 3, 100, 10_000] {
                let longer = format!("{}{}{}", &cookie[..at], "A".repeat(more), &cookie[at..]);
                assert_eq!(read(&keys(&[1]), &longer), None, "{longer}");
            }
        }
    }

    #[test]
    fn keys_can_be_rotated() {
        let voter = Identity::random().unwrap();
        let old = pair(&keys(&[1]), &voter);
        assert_eq!(read(&keys(&[2, 1]), &old), Some(voter), "the old key still verifies");
        assert_eq!(read(&keys(&[1]), &pair(&keys(&[2, 1]), &voter)), None, "the first key signs");
        assert_eq!(read(&keys(&[2]), &old), None);
    }

    #[test]
    fn with_tls_the_cookie_is_bound_to_the_host() {
        let keys = CookieKeys::new(&[secret(1)], true).unwrap();
        let set = keys.set(&Identity::random().unwrap()).unwrap();
        let set = set.to_str().unwrap();
        assert!(set.starts_with("__Host-vote-voter=") && set.contains("; Secure"), "{set}");
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Lax") && set.contains("Path=/"), "{set}");
    }

    #[test]
    fn debug_output_hides_the_keys() {
        assert!(!format!("{:?}", keys(&[1])).contains("01010101"));
    }
}
