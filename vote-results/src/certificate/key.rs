//! Ed25519 keys in the format of OpenSSL, and signatures in hex.

use std::{fmt, fs, io::Read, path::Path};

use ed25519_dalek::{
    Signature, Signer, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, spki::der::pem::LineEnding},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Command that creates a private key, for messages and documentation.
pub const HOW_TO_MAKE: &str = "openssl genpkey -algorithm ed25519 -out key.pem";
/// Command that exports the public key of a private one, for messages and documentation.
pub const HOW_TO_PUBLISH: &str = "openssl pkey -in key.pem -pubout -out public-key.pem";

/// Maximum number of bytes read from a key file. A key takes 119.
const MAX_FILE: u64 = 16 << 10;

/// Reason why a key can't be used, with the command that creates a usable one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// Private key that signs certificates. Wiped from memory when dropped; `Debug` does not show it.
pub struct PrivateKey(SigningKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey of {:?}", self.public())
    }
}

impl PrivateKey {
    /// Reads a private key from a file: unencrypted PKCS#8 as PEM, as created by [`HOW_TO_MAKE`].
    ///
    /// # Errors
    /// Fails if the file can't be read or contains anything else.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let wrong = |what: String| {
            KeyError(format!(
                "--key {}: {what}; expected an unencrypted Ed25519 private key in PKCS#8 PEM. Create one with: \
                 {HOW_TO_MAKE}",
                file.display()
            ))
        };
        let pem = read(file).map_err(wrong)?;
        match SigningKey::from_pkcs8_pem(&pem) {
            Ok(key) => Ok(Self(key)),
            Err(_) => Err(wrong("not a usable private key".to_owned())),
        }
    }

    /// Returns the public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Returns the signature of the bytes as 128 lower-case hex digits and a line feed.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        hex::encode(self.0.sign(bytes).to_bytes()) + "\n"
    }
}

/// Public key that verifies the signatures of certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl PublicKey {
    /// Reads a public key from a file: SubjectPublicKeyInfo as PEM, as created by [`HOW_TO_PUBLISH`].
    ///
    /// # Errors
    /// Fails if the file can't be read or contains anything else, and for weak keys.
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let wrong = |what: String| {
            KeyError(format!(
                "--public-key {}: {what}; expected an Ed25519 public key in PEM. The holder of the private key exports \
                 it with: {HOW_TO_PUBLISH}",
                file.display()
            ))
        };
        let pem = read(file).map_err(wrong)?;
        match VerifyingKey::from_public_key_pem(&pem) {
            Ok(key) if key.is_weak() => {
                Err(wrong("a weak key, for which anyone can forge signatures".to_owned()))
            }
            Ok(key) => Ok(Self(key)),
            Err(_) => Err(wrong("not a usable public key".to_owned())),
        }
    }

    /// Returns the content of a PEM file with the key.
    ///
    /// # Errors
    /// Fails if the key can't be encoded, which does not happen for keys of this kind.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .map_err(|e| KeyError(format!("the public key can't be encoded: {e}")))
    }

    /// Returns the SHA-256 of the key in DER, in hex, as printed by
    /// `openssl pkey -pubin -in public-key.pem -outform DER | sha256sum`. Short enough to be read aloud or printed in a
    /// newspaper.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // Encoding an array of fixed size does not fail. An empty string would match no fingerprint.
        self.0.to_public_key_der().map(|der| hex::encode(Sha256::digest(der.as_bytes()))).unwrap_or_default()
    }

    /// Whether `signature` is a signature of the bytes in exactly the form that [`PrivateKey::sign`] returns.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let Some(digits) =
            signature.strip_suffix(b"\n").filter(|digits| !digits.iter().any(u8::is_ascii_uppercase))
        else {
            return false;
        };
        let mut raw = [0; Signature::BYTE_SIZE];
        // Strict verification: no signature may have a second valid form.
        hex::decode_to_slice(digits, &mut raw).is_ok()
            && self.0.verify_strict(bytes, &Signature::from_bytes(&raw)).is_ok()
    }
}

fn read(file: &Path) -> Result<Zeroizing<String>, String> {
    // Allocated at full size: growing the buffer would leave copies of the secret in memory.
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
    // Section 7.1, test 1: the signature of the empty message.
    const EMPTY_SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970\
                              1cf9b46bd25bf5f0595bbe24655141438e7a100b\n";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn keys_are_read_and_written_in_the_format_of_openssl() {
        let key = PrivateKey::read(file(PRIVATE).path()).unwrap();
        assert_eq!(key.public(), PublicKey::read(file(PUBLIC).path()).unwrap());
        assert_eq!(key.public().to_pem().unwrap(), PUBLIC);
    }

    #[test]
    fn a_signature_equals_the_test_vector_of_the_rfc() {
        let key = PrivateKey::read(file(PRIVATE).path()).unwrap();
        assert_eq!(key.sign(b""), EMPTY_SIGNATURE);
        assert!(key.public().verifies(b"", EMPTY_SIGNATURE.as_bytes()));
        assert!(!key.public().verifies(b"x", EMPTY_SIGNATURE.as_bytes()));
    }

    #[test]
    fn a_signature_has_only_one_valid_form() {
        let key = PublicKey::read(file(PUBLIC).path()).unwrap();
        for other in [
            EMPTY_SIGNATURE.to_uppercase(),
            EMPTY_SIGNATURE.trim().to_owned(),
            format!("{EMPTY_SIGNATURE}\n"),
            String::new(),
        ] {
            assert!(!key.verifies(b"", other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn a_file_without_a_usable_key_is_refused_with_the_command_that_creates_one() {
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
    fn a_weak_key_is_refused() {
        let weak = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
                    -----END PUBLIC KEY-----\n";
        let e = PublicKey::read(file(weak).path()).unwrap_err().to_string();
        assert!(e.contains("anyone can forge"), "{e}");
    }

    #[test]
    fn debug_does_not_show_a_private_key() {
        let key = PrivateKey::read(file(PRIVATE).path()).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().fingerprint()) && !shown.contains("9d61"), "{shown}");
    }
}
