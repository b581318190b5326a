//! Ed25519 keys as OpenSSL writes them, signatures as hex.

use std::{fmt, fs, io::Read, path::Path};

use ed25519_dalek::{
    Signature, Signer, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, spki::der::pem::LineEnding},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// How to make a key, for messages and the documentation.
pub const HOW_TO_MAKE: &str = "openssl genpkey -algorithm ed25519 -out key.pem";
/// How to get the public half of it.
pub const HOW_TO_PUBLISH: &str = "openssl pkey -in key.pem -pubout -out public-key.pem";

/// The most bytes of a file with a key; one takes 119.
const MAX_FILE: u64 = 16 << 10;

/// Why a key can't be used; says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// Signs certificates. Wiped from memory when dropped, and never shown.
pub struct PrivateKey(SigningKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey of {:?}", self.public())
    }
}

impl PrivateKey {
    /// From a file: PKCS#8 as PEM, not encrypted, as [`HOW_TO_MAKE`] makes it.
    ///
    /// # Errors
    /// When it can't be read or is something else.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let wrong = |what: String| {
            KeyError(format!(
                "--key {}: {what}. It is to be an Ed25519 private key without a password; make one with: {HOW_TO_MAKE}",
                file.display()
            ))
        };
        let pem = read(file).map_err(wrong)?;
        match SigningKey::from_pkcs8_pem(&pem) {
            Ok(key) => Ok(Self(key)),
            Err(_) => Err(wrong("is no such key".to_owned())),
        }
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The signature of these bytes: 128 hex digits in lower case and a line's end.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        hex::encode(self.0.sign(bytes).to_bytes()) + "\n"
    }
}

/// Checks signatures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl PublicKey {
    /// From a file: SubjectPublicKeyInfo as PEM, as [`HOW_TO_PUBLISH`] makes it.
    ///
    /// # Errors
    /// When it can't be read or is something else.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let wrong = |what: String| {
            KeyError(format!(
                "--public-key {}: {what}. It is to be an Ed25519 public key; who has the private one makes it with: \
                 {HOW_TO_PUBLISH}",
                file.display()
            ))
        };
        let pem = read(file).map_err(wrong)?;
        match VerifyingKey::from_public_key_pem(&pem) {
            Ok(key) if key.is_weak() => Err(wrong("is a key with which anybody can sign".to_owned())),
            Ok(key) => Ok(Self(key)),
            Err(_) => Err(wrong("is no such key".to_owned())),
        }
    }

    /// As in a file of its own.
    ///
    /// # Errors
    /// When it can't be encoded, which the format of these keys gives no cause for.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .map_err(|e| KeyError(format!("the public key can't be written: {e}")))
    }

    /// SHA-256 of the key in DER, in hex: what `openssl pkey -pubin -in public-key.pem -outform DER | sha256sum`
    /// prints. Short enough to be read aloud or printed in a newspaper.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // Encoding an array of fixed size does not fail; and an empty text would match no fingerprint.
        self.0.to_public_key_der().map(|der| hex::encode(Sha256::digest(der.as_bytes()))).unwrap_or_default()
    }

    /// Whether `signature`, exactly as [`PrivateKey::sign`] writes it, is that of these bytes.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let Some(digits) =
            signature.strip_suffix(b"\n").filter(|digits| !digits.iter().any(u8::is_ascii_uppercase))
        else {
            return false;
        };
        let mut raw = [0; Signature::BYTE_SIZE];
        // Strict: of one signature there must not be two forms.
        hex::decode_to_slice(digits, &mut raw).is_ok()
            && self.0.verify_strict(bytes, &Signature::from_bytes(&raw)).is_ok()
    }
}

fn read(file: &Path) -> Result<Zeroizing<String>, String> {
    // Of that size at once: growing would leave copies of a secret behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    let opened = fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    opened.map_err(|e| format!("can't be read: {e}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The first key pair of RFC 8032, section 7.1, as `openssl pkey` writes it.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    // Section 7.1, test 1: of the empty message.
    const OF_NOTHING: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970\
                              1cf9b46bd25bf5f0595bbe24655141438e7a100b\n";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn keys_are_read_and_written_as_openssl_does() {
        let key = PrivateKey::read(file(PRIVATE).path()).unwrap();
        assert_eq!(key.public(), PublicKey::read(file(PUBLIC).path()).unwrap());
        assert_eq!(key.public().to_pem().unwrap(), PUBLIC);
    }

    #[test]
    fn a_signature_is_the_one_of_the_standard() {
        let key = PrivateKey::read(file(PRIVATE).path()).unwrap();
        assert_eq!(key.sign(b""), OF_NOTHING);
        assert!(key.public().verifies(b"", OF_NOTHING.as_bytes()));
        assert!(!key.public().verifies(b"x", OF_NOTHING.as_bytes()));
    }

    #[test]
    fn a_signature_has_one_form_only() {
        let key = PublicKey::read(file(PUBLIC).path()).unwrap();
        for other in [
            OF_NOTHING.to_uppercase(),
            OF_NOTHING.trim().to_owned(),
            format!("{OF_NOTHING}\n"),
            String::new(),
        ] {
            assert!(!key.verifies(b"", other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_with_what_makes_one() {
        for path in [file("").path(), file(PUBLIC).path(), Path::new("/nowhere")] {
            let e = PrivateKey::read(path).unwrap_err().to_string();
            assert!(e.starts_with("--key ") && e.contains(HOW_TO_MAKE), "{e}");
        }
        for path in [file(PRIVATE).path(), Path::new("/nowhere")] {
            let e = PublicKey::read(path).unwrap_err().to_string();
            assert!(e.starts_with("--public-key ") && e.contains(HOW_TO_PUBLISH), "{e}");
        }
    }

    #[test]
    fn a_key_that_signs_everything_is_refused() {
        let weak = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
                    -----END PUBLIC KEY-----\n";
        let e = PublicKey::read(file(weak).path()).unwrap_err().to_string();
        assert!(e.contains("anybody can sign"), "{e}");
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = PrivateKey::read(file(PRIVATE).path()).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().fingerprint()) && !shown.contains("9d61"), "{shown}");
    }
}
