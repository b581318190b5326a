//! Verification of a certificate: by the library, by the program, and by the commands on its page.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use proptest::prelude::*;
use vote_results::certificate::{PrivateKey, PublicKey, files, verify};

use super::{ALL, Place, final_world, run_verify, sqlite};

/// Returns a certificate that the tests of the process share and do not change.
fn shared() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = final_world(sqlite(&place).await.0).await;
            place.certify(&world, false).await.unwrap();
        });
        place
    })
}

/// Returns a copy of the shared certificate.
fn copied() -> Place {
    let place = Place::new();
    fs::create_dir(place.out()).unwrap();
    for name in ALL {
        fs::copy(shared().out().join(name), place.out().join(name)).unwrap();
    }
    place
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_changed_byte_is_detected(file in 0..ALL.len(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let place = copied();
        let path = place.out().join(ALL[file]);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(&path, bytes).unwrap();
        let e = place.verify().unwrap_err();
        // A mismatch of certificate.json and its signature names both files, whichever of the two was changed.
        prop_assert!(e.contains(ALL[file]), "byte {at} of {}: {e}", ALL[file]);
    }
}

#[test]
fn missing_truncated_and_extended_files_are_detected() {
    for name in ALL {
        let place = copied();
        let path = place.out().join(name);
        let whole = fs::read(&path).unwrap();
        for other in [&whole[..whole.len() - 1], &[], &[&whole[..], b"\n"].concat()] {
            fs::write(&path, other).unwrap();
            assert!(place.verify().unwrap_err().contains(name), "{name}");
        }
        fs::remove_file(&path).unwrap();
        assert!(place.verify().unwrap_err().starts_with(&format!("{name}: can't be read")), "{name}");
        fs::create_dir(&path).unwrap();
        assert!(place.verify().unwrap_err().contains("not a regular file"), "{name}");
    }
}

#[test]
fn huge_files_are_not_read_to_their_end() {
    for name in ALL {
        let place = copied();
        // A sparse file: it takes no space on disk, but would take 64 GiB of memory.
        let file = fs::File::options().write(true).open(place.out().join(name)).unwrap();
        file.set_len(64 << 30).unwrap();
        let e = place.verify().unwrap_err();
        assert!(e.contains("longer than"), "{name}: {e}");
    }
}

#[test]
fn another_key_does_not_verify() {
    let (code, text) = run_verify(shared(), "other.pem");
    assert!(code == Some(1) && text.contains("FAILED  certificate.sig: not a valid signature"), "{text}");
}

#[test]
fn an_unusable_public_key_exits_with_78() {
    for name in ["key.pem", "nothing.pem"] {
        let (code, text) = run_verify(shared(), name);
        assert!(code == Some(78) && text.contains("openssl pkey -in key.pem -pubout"), "{text}");
    }
}

#[test]
fn a_signed_certificate_that_contradicts_its_ballots_is_invalid() {
    let count = r#""count": 40"#;
    for (from, to, found) in [
        (r#""votes": 30"#, r#""votes": 31"#, "ballots for cats: 30, where the certificate says 31"),
        (count, r#""count": 41"#, "ballots.csv: ballots: 40, where the certificate says 41"),
        (r#""superseded": 10"#, r#""superseded": 9"#, "do not equal 40 new voters + 9 superseded"),
        (r#""slug": "dogs""#, r#""slug": "birds""#, "differ from those of the poll"),
        (r#""verdict": "holds""#, r#""verdict": "broken""#, "its audit does not"),
        (r#""format": 3"#, r#""format": 2"#, "has format 2"),
        (r#""format": 3"#, r#""format": 3, "note": "x""#, "unknown field `note`"),
        (r#""reread": 0"#, r#""reread": 0, "note": "x""#, "note is not part of format 3"),
    ] {
        let place = copied();
        place.resign(from, to);
        let e = place.verify().unwrap_err();
        assert!(e.contains(found), "{to}: {e}");
    }
}

/// Runs shell commands in the folder of the certificate and returns their output.
fn shell(place: &Place, line: &str) -> String {
    let mut shell = Command::new("sh")
        .args(["-c", line])
        .current_dir(place.out())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = shell.wait().unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(status.success(), "{line}: {status}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_on_the_page_check_the_certificate_without_our_program() {
    // xxd converts the hex signature to bytes for openssl.
    for name in ["openssl", "xxd"] {
        if Command::new(name).arg("-version").stdin(Stdio::null()).output().is_err() {
            let _ = writeln!(
                std::io::stderr(),
                "NOT TESTED: {name} is not installed, so no signature was checked with openssl"
            );
            let place = copied();
            let sha256 = place.verify().unwrap().ballots.sha256;
            assert_eq!(shell(&place, "sha256sum ballots.csv"), format!("{sha256}  ballots.csv\n"));
            return;
        }
    }
    let place = copied();
    let page = fs::read_to_string(place.out().join(files::PAGE)).unwrap();
    let commands = page.split("<pre>").find(|part| part.starts_with("sha256sum")).unwrap();
    let commands = commands.split("</pre>").next().unwrap().replace("&amp;", "&");

    let output = shell(&place, &format!("set -e\n{commands}"));

    let certificate = place.verify().unwrap();
    let expected = format!(
        "{}  ballots.csv\n{}  -\neach voter once\n     30 cats\n     10 dogs\nSignature Verified Successfully\n",
        certificate.ballots.sha256,
        place.private().public().fingerprint()
    );
    assert_eq!(output, expected);
    let docs = include_str!("../../../../docs/certificate.md").replace("\n    ", "\n");
    assert!(docs.contains(&format!("\n{commands}\n")), "docs/certificate.md lacks these commands");
    // Keys created by openssl are accepted.
    shell(
        &place,
        "openssl genpkey -algorithm ed25519 -out ../made.pem && openssl pkey -in ../made.pem -pubout -out ../made-public.pem",
    );
    let made = PrivateKey::read(&place.path("made.pem")).unwrap().public();
    assert_eq!(made, PublicKey::read(&place.path("made-public.pem")).unwrap());
}

#[test]
fn verifying_a_missing_folder_fails() {
    let place = Place::new();
    let e =
        verify(Path::new("/nowhere"), &place.private().public(), &mut Vec::new()).unwrap_err().to_string();
    assert!(e.starts_with("certificate.json: can't be read"), "{e}");
}
